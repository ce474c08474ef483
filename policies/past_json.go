package policies

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"sgc/internal/flow"
)

// pastText is a Past in JSON. Peers may be many, and many rules may share them:
// they stand there once, as prefixes.
type pastText struct {
	Rules []pastRuleText   `json:"rules,omitempty"`
	Peers [][]netip.Prefix `json:"peers,omitempty"`
}

// pastRuleText is a PastRule with the place of its peers.
type pastRuleText struct {
	PastRule
	Peers int `json:"peers"`
}

// MarshalJSON writes peers once that several rules share.
func (p *Past) MarshalJSON() ([]byte, error) {
	var text pastText
	places := map[*flow.Range]int{}
	for _, r := range p.Rules {
		place, known := places[&r.Peers[0]]
		if !known {
			place = len(text.Peers)
			places[&r.Peers[0]] = place
			text.Peers = append(text.Peers, prefixesOf(r.Peers))
		}
		text.Rules = append(text.Rules, pastRuleText{*r, place})
	}
	return json.Marshal(text)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Past) UnmarshalJSON(b []byte) error {
	var text pastText
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	peers := make([][]flow.Range, len(text.Peers))
	for i, prefixes := range text.Peers {
		if peers[i] = rangesOf(prefixes); len(peers[i]) == 0 {
			return fmt.Errorf("past rules with no peers (number %d)", i)
		}
	}
	p.Rules = nil
	for i := range text.Rules {
		r := &text.Rules[i]
		if r.Peers < 0 || r.Peers >= len(peers) {
			return fmt.Errorf("the past rule of %s on %s has peers of number %d, of %d", r.Group, r.Interface, r.Peers, len(peers))
		}
		r.PastRule.Peers = peers[r.Peers]
		p.Rules = append(p.Rules, &r.PastRule)
	}
	return nil
}

// prefixesOf are the prefixes of merged ranges, sorted.
func prefixesOf(ranges []flow.Range) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range ranges {
		out = append(out, r.Prefixes()...)
	}
	return out
}
