package cli

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

const openPolicy = `
security_group "web" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80, "8000-8099"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "ssh" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["10.0.0.0/8"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
security_group "all" {
  ingress "any" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
interface "eth0" {
  security_groups = [security_group.web]
}
interface "eth*" {
  security_groups = [security_group.web, security_group.all]
}
interface "nt1" {
  security_groups = [security_group.web]
  notrack         = "off"
}
interface "at1" {
  security_groups = [security_group.web]
  always_track "balancers" {
    cidr_blocks = ["10.0.0.0/8"]
  }
}
`

// What the kernel's table says of open flows is what the policy says that it was
// made from.
func TestRecoverOpen(t *testing.T) {
	s := newStage(t, true)
	s.write("p/p.hcl", openPolicy)
	s.mustRun("apply", "--auto-approve", s.dir+"/p")
	loaded := policies.Load(s.dir+"/p", policies.Inputs{})
	k, _ := s.open()
	snapshot, err := k.Snapshot(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	e := recoverOpen(snapshot.Table)
	if len(e.Conntrack) != 0 {
		t.Errorf("recovered %v, and nothing needs conntrack", e.Conntrack)
	}
	for _, i := range e.Policy.Interfaces {
		if i.NotrackOff != (i.Name == "nt1") {
			t.Errorf("%s: notrack off is %v", i.Name, i.NotrackOff)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	got, want := policies.NewJudge(e.Policy), policies.NewJudge(loaded.Policy)
	ports := []uint16{22, 80, 79, 81, 8000, 8050, 8099, 8100, 40000, 0, 65535}
	open := 0
	for range 20000 {
		p := flow.Packet{
			Interface:  []string{"eth0", "eth1", "nt1", "at1", "other"}[random.IntN(5)],
			Direction:  flow.Directions[random.IntN(2)],
			Protocol:   []flow.Protocol{flow.TCP, flow.UDP, flow.ICMP}[random.IntN(3)],
			Source:     netip.AddrFrom4([4]byte{byte(9 + random.IntN(3)), 1, 1, 1}),
			Dest:       netip.AddrFrom4([4]byte{byte(9 + random.IntN(3)), 1, 1, 2}),
			SourcePort: ports[random.IntN(len(ports))],
			DestPort:   ports[random.IntN(len(ports))],
		}
		if random.IntN(3) == 0 {
			p.Source, p.Dest = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		}
		if !p.Protocol.HasPorts() {
			p.SourcePort, p.DestPort = 0, 0
		}
		if want.Open(&p) {
			open++
		}
		if got.Open(&p) != want.Open(&p) {
			t.Fatalf("%s: recovered %v, the policy says %v", &p, got.Open(&p), want.Open(&p))
		}
	}
	if open == 0 {
		t.Error("no packet was open")
	}
}
