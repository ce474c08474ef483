package conntrack

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// A flow that is cut is held on every link that the new policy governs and on which
// it does not let the flow open.
func TestWhereACutFlowIsHeld(t *testing.T) {
	s := newStand(t)
	for _, f := range flow.Families {
		for _, opened := range flow.Directions {
			k := kind{flow.UDP, f, opened, "host"}
			r := rules{k}
			// at is a policy that closes eth0, and has more on other links.
			at := func(name string, list ...*policies.Rule) *policies.Policy {
				p := gone(r)
				p.Groups = append(p.Groups, groupOf("b", list...))
				p.Interfaces = append(p.Interfaces, &policies.Interface{Name: name, Groups: []string{"b"}})
				return p
			}
			_, _, peer := ends(f)
			for _, tc := range []struct {
				name string
				new  *policies.Policy
				want string
			}{
				{"nobody governs the other link", gone(r), "eth0"},
				{"nothing is allowed there", at("br0"), "eth0 br0"},
				{"a wildcard governs it", at("br*"), "eth0 br0"},
				{"other flows are allowed there, and the way back", at("br0", r.other(), r.back()), "eth0 br0"},
				{"everybody may open it there", at("br0", r.everybody(), r.back()), "eth0"},
				{"its peer alone may open it there", at("br0", r.peerAlone()), "eth0"},
				{"a link that is not there", at("eth1"), "eth0"},
			} {
				c := NewChange(ChangeOptions{
					Old: &Enforced{Policy: open(r)}, New: &Enforced{Policy: tc.new}, Routes: s.routes, Openers: s.openers,
				})
				for what, judge := range map[string]func(*Changed) error{
					"entry":  func(out *Changed) error { return c.Entry(k.entry(), out) },
					"socket": func(out *Changed) error { return c.Socket(k.socket(), out) },
				} {
					var out Changed
					if err := judge(&out); err != nil {
						t.Fatal(err)
					}
					var links []string
					for _, h := range out.Held {
						links = append(links, h.Interface)
						first := out.Held[0]
						first.Interface = h.Interface
						if h != first || h.Local == peer {
							t.Errorf("%s, %s, by its %s: %v is held beside %v", k, tc.name, what, h, out.Held[0])
						}
					}
					if got := strings.Join(links, " "); out.Fate != Cut || got != tc.want {
						t.Errorf("%s, %s, by its %s: %s, held on %q; want %q", k, tc.name, what, out.Fate, got, tc.want)
					}
				}
			}
		}
	}
}

// Of very many links, those are held on that the policy names.
func TestHeldOnSoManyLinks(t *testing.T) {
	s := newStand(t)
	k := kind{flow.UDP, flow.IPv4, flow.Ingress, "host"}
	p := gone(rules{k})
	p.Interfaces = append(p.Interfaces, &policies.Interface{Name: "*"}, &policies.Interface{Name: "vpn7"})
	routes := *s.routes
	routes.names = map[int32]string{}
	for index, name := range s.routes.names {
		routes.names[index] = name
	}
	for i := range int32(2 * maxHeldLinks) {
		routes.names[1000+i] = fmt.Sprintf("veth%d", i)
	}
	routes.names[5000] = "vpn7"
	c := NewChange(ChangeOptions{Old: &Enforced{Policy: open(rules{k})}, New: &Enforced{Policy: p}, Routes: &routes, Openers: s.openers})
	var out Changed
	if err := c.Entry(k.entry(), &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Held) != 1+maxHeldLinks || out.Held[0].Interface != "eth0" || out.Held[1].Interface != "vpn7" {
		t.Errorf("held on %d links: %v", len(out.Held), out.Held)
	}
	if slices.ContainsFunc(out.Held, func(h policies.Held) bool { return h.Interface == policies.Loopback }) {
		t.Error("held on the loopback")
	}
}
