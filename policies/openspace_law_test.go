package policies_test

import (
	"testing"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

// An open packet crosses an open interface; and of all open interfaces, nearly
// every one has such a packet.
func TestOpenInterfacesAreThoseOfOpenPackets(t *testing.T) {
	type key struct {
		policy uint64
		name   string
		family flow.Family
	}
	met, claimed := map[key]bool{}, map[key]bool{}
	for seed := range uint64(200) {
		r := corpus.Seeded(seed)
		p := corpus.Policy(r, corpus.Options{})
		judge := policies.NewJudge(p)
		for _, f := range flow.Families {
			for _, i := range p.OpenInterfaces(f) {
				claimed[key{seed, i.Name, f}] = true
			}
		}
		packets := corpus.NewPackets(r, p)
		for range 500 {
			packet := packets.Next()
			i := judge.Interface(packet.Interface)
			if i == nil || !judge.Open(&packet) {
				continue
			}
			k := key{seed, i.Name, packet.Family()}
			met[k] = true
			if !claimed[k] {
				t.Fatalf("seed %d: %s is open, but %v is not among the open interfaces of %s", seed, &packet, i.Name, k.family)
			}
		}
	}
	if len(claimed) == 0 || len(met)*10 < len(claimed)*9 {
		t.Errorf("of %d open interfaces, %d had an open packet", len(claimed), len(met))
	}
	t.Logf("%d of %d", len(met), len(claimed))
}
