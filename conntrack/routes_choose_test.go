package conntrack

import (
	"net/netip"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// Where nothing else tells by which link a flow came, the old policy does.
func TestTheOldPolicyTellsTheLink(t *testing.T) {
	ns := hostNamespace(t)
	for _, link := range []string{"eth0", "br0"} {
		for _, shared := range []string{"203.0.113.200/32", "2001:db8:99::200/128"} {
			if err := ns.AddAddress(link, netip.MustParsePrefix(shared)); err != nil {
				t.Fatal(err)
			}
		}
	}
	routes, err := openTable(t, ns).Routes()
	if err != nil {
		t.Fatal(err)
	}
	defer routes.Close()
	shared := map[flow.Family]netip.Addr{flow.IPv4: netip.MustParseAddr("203.0.113.200"), flow.IPv6: netip.MustParseAddr("2001:db8:99::200")}
	neighbour := map[flow.Family]netip.Addr{flow.IPv4: netip.MustParseAddr("192.0.2.77"), flow.IPv6: netip.MustParseAddr("2001:db8::77")}
	type makes = func(rules) *policies.Policy
	for _, f := range flow.Families {
		for _, opened := range flow.Directions {
			for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
				k := kind{protocol, f, opened, "host"}
				host, _, peer := ends(f)
				// likely is by eth0 if anything; twin has an address that both links have.
				likely, twin := k.entry(), k.between(shared[f], peer)
				near := k.between(host, neighbour[f])
				for _, tc := range []struct {
					name       string
					entry      *Entry
					outer, in  makes // the old policy at eth0 and br0
					outer2, i2 makes // the new one
					past       makes
					link       string
					want       Fate
				}{
					{"twins, and it was open on the other", twin, nothing, open, nothing, gone, nil, "br0", Cut},
					{"twins, and it was open on the other, which is narrowed", twin, nothing, open, nothing, tracked, nil, "br0", BecomesTracked},
					{"twins, and it was open on the other, allowed on this", twin, tracked, open, tracked, gone, nil, "br0", Cut},
					{"twins, and it was allowed on the other alone", twin, nothing, tracked, nothing, nothing, nil, "br0", Lingers},
					{"twins, and it was open on both", twin, open, open, open, gone, nil, "eth0", Stays},
					{"twins, and it was allowed on neither", twin, nothing, gone, nothing, nothing, nil, "eth0", Lingers},
					{"twins, one of which nobody governed", twin, nil, open, nothing, gone, nil, "br0", Cut},
					{"a likely link, and it was open on the other alone", likely, nothing, open, nothing, gone, nil, "br0", Cut},
					{"a likely link that allows it", likely, tracked, open, tracked, gone, nil, "eth0", Stays},
					{"a likely link that allows it no more", likely, tracked, open, nothing, gone, nil, "eth0", Lingers},
					{"a likely link that allowed it once", likely, nothing, open, nothing, gone, tracked, "eth0", Lingers},
					{"a likely link, and it was allowed on the other", likely, nothing, tracked, nothing, nothing, nil, "eth0", Lingers},
					{"a likely link, and the other stays open", likely, nothing, open, gone, open, nil, "eth0", Lingers},
					{"a neighbour", near, nothing, open, nothing, gone, nil, "eth0", Lingers},
				} {
					r := rules{k}
					at := func(outer, in makes) *policies.Policy {
						p := &policies.Policy{}
						for i, m := range []makes{outer, in} {
							if m == nil {
								continue
							}
							name := []string{"a", "b"}[i]
							one := m(r)
							for _, g := range one.Groups {
								g.Name = name
								for _, x := range g.Rules {
									x.Group = name
								}
								p.Groups = append(p.Groups, g)
							}
							p.Interfaces = append(p.Interfaces, &policies.Interface{Name: []string{"eth0", "br0"}[i], Groups: []string{name}})
						}
						return p
					}
					old, new := at(tc.outer, tc.in), at(tc.outer2, tc.i2)
					o := ChangeOptions{Old: &Enforced{Policy: old}, New: &Enforced{Policy: new}, Routes: routes}
					if tc.past != nil {
						o.Past = (*policies.Past)(nil).Add(at(tc.past, nil), old, time.Time{}).Forget(old)
					}
					var out Changed
					if err := NewChange(o).Entry(tc.entry, &out); err != nil {
						t.Fatal(err)
					}
					if len(out.Legs) != 1 || out.Legs[0].Packet.Interface != tc.link || out.Fate != tc.want {
						t.Errorf("%s: %s: %+v %s; want %s %s", k, tc.name, out.Legs, out.Fate, tc.link, tc.want)
					}
				}
			}
		}
	}
}

// between is the entry of a flow of the kind between other ends.
func (k kind) between(host, peer netip.Addr) *Entry {
	e := k.entry()
	was, _, _ := ends(k.family)
	for _, a := range []*netip.Addr{&e.Original.Source, &e.Original.Dest, &e.Reply.Source, &e.Reply.Dest} {
		if *a == was {
			*a = host
		} else {
			*a = peer
		}
	}
	return e
}
