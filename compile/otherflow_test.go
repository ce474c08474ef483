package compile

import (
	"net/netip"
	"slices"
	"testing"

	"sgc/internal/ruleset"
	"sgc/policies"
)

// The sets' keys are made by packets, and read back here.
func TestOtherFlow(t *testing.T) {
	table := Compile(&policies.Policy{Interfaces: []*policies.Interface{{Name: "eth0"}}}, Environment{})
	for _, set := range OtherFlows() {
		name := set.Name
		n := slices.IndexFunc(table.Sets, func(s *ruleset.Set) bool { return s.Name == name })
		if n < 0 || !table.Sets[n].Dynamic {
			t.Fatalf("there is no dynamic set %s", name)
		}
		for _, peer := range []string{"198.51.100.7", "2001:db8::7"} {
			want := policies.OtherFlow{Interface: "abcdefghijklmno", Protocol: 47, Peer: netip.MustParseAddr(peer)}
			key := ruleset.Concat(ruleset.IfNameKey(want.Interface), ruleset.ProtoKey(want.Protocol), ruleset.AddrKey(want.Peer))
			got, ok := OtherFlow(name, key)
			if fits := len(key) == table.Sets[n].KeySize(); ok != fits || fits && got != want {
				t.Errorf("%s: got %v, %t; want %v, %t", name, got, ok, want, fits)
			}
		}
		if _, ok := OtherFlow(name, "short"); ok {
			t.Errorf("%s: a short key is read", name)
		}
	}
	if _, ok := OtherFlow("exempt.ipv4", "1234"); ok {
		t.Error("another set is read")
	}
}
