package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Digest returns "sha256:" and 64 hexadecimal digits that stand for what the
// policy means. Descriptions, tests, file names and positions have no part in
// it: two policies with one digest compile to the same table.
func (p *Policy) Digest() string {
	hash := sha256.New()
	out := json.NewEncoder(hash)
	// The kind keeps things of different kinds and the same fields apart.
	encode := func(kind string, v any) {
		if err := out.Encode([]any{kind, v}); err != nil {
			panic("policies: a policy that is not JSON: " + err.Error())
		}
	}
	for _, g := range p.Groups {
		c := *g
		c.Description, c.Pos, c.Rules = "", Pos{}, nil
		encode("group", c)
		for _, r := range g.Rules {
			c := *r
			c.Description, c.Pos = "", Pos{}
			encode("rule", c)
		}
	}
	for _, l := range p.Lists {
		c := *l
		c.Description, c.Pos = "", Pos{}
		encode("list", c)
	}
	for _, a := range p.ACLs {
		encode("acl", a.Name)
		for _, e := range a.Entries {
			c := *e
			c.Pos = Pos{}
			encode("entry", c)
		}
	}
	for _, i := range p.Interfaces {
		c := *i
		c.Pos, c.AlwaysTrack = Pos{}, nil
		if i.Log != nil {
			log := *i.Log
			log.Pos = Pos{}
			c.Log = &log
		}
		encode("interface", c)
		for _, t := range i.AlwaysTrack {
			c := *t
			c.Pos = Pos{}
			encode("always_track", c)
		}
	}
	host := p.Host
	host.Pos = Pos{}
	if host.Conntrack != nil {
		c := *host.Conntrack
		c.Pos = Pos{}
		host.Conntrack = &c
	}
	encode("host", host)
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}
