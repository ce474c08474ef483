package policies_test

import (
	"testing"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

// Standing is Decide for a new packet, in fewer words.
func TestStandingAgreesWithDecide(t *testing.T) {
	seen := map[policies.Class]int{}
	denied := 0
	for seed := range uint64(150) {
		r := corpus.Seeded(seed)
		p := corpus.Policy(r, corpus.Options{ACLs: seed%2 == 0, AlwaysTrack: true})
		withoutACLs := *p
		withoutACLs.Interfaces = nil
		for _, i := range p.Interfaces {
			bare := *i
			bare.ACL = ""
			withoutACLs.Interfaces = append(withoutACLs.Interfaces, &bare)
		}
		j, groups := policies.NewJudge(p), policies.NewJudge(&withoutACLs)
		packets := corpus.NewPackets(r, p)
		for range 200 {
			packet := packets.Next()
			got := j.Standing(&packet)
			packet.State = flow.New
			if packet.Protocol == flow.TCP {
				packet.TCPFlags = flow.SYN
			}
			want, byGroups := j.Decide(&packet), groups.Decide(&packet)
			if allowed := got.Class != policies.None && !got.Denied; allowed != want.Allow {
				t.Fatalf("seed %d, %v: %+v, but Decide says %+v\n%s", seed, &packet, got, want, corpus.HCL(p))
			}
			if got.Class != byGroups.Class || got.Rule != byGroups.Rule {
				t.Fatalf("seed %d, %v: %+v, but without ACLs Decide says %+v\n%s", seed, &packet, got, byGroups, corpus.HCL(p))
			}
			seen[got.Class]++
			if got.Denied {
				denied++
			}
		}
	}
	for _, c := range []policies.Class{policies.None, policies.Unmanaged, policies.Exempt, policies.Tracked, policies.Untracked, policies.Stateless} {
		if seen[c] < 20 {
			t.Errorf("only %d packets of class %s", seen[c], c)
		}
	}
	if denied < 20 {
		t.Errorf("ACLs denied only %d packets", denied)
	}
}

func BenchmarkStanding(b *testing.B) {
	p := attached(group("web",
		rule(flow.Ingress, "https", flow.TCP, ports(port(443)), "0.0.0.0/0"),
		rule(flow.Ingress, "ssh", flow.TCP, ports(port(22)), "203.0.113.0/24"),
		everything(flow.Egress, "any", "0.0.0.0/0"),
	))
	j := policies.NewJudge(p)
	packet := in(flow.TCP, "198.51.100.7", 51344, 443)
	for b.Loop() {
		if s := j.Standing(&packet); s.Class != policies.Untracked {
			b.Fatal(s)
		}
	}
}
