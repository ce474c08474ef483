package cli

import (
	"context"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"sgc/conntrack"
	"sgc/policies"
)

// tunnelsPolicy lets GRE of one peer in by a group of its own, which may be
// deleted, and of another by one that stays. NAT is not needed for rules that cut:
// notrack is off, and the port can be taken away.
func tunnelsPolicy(vpn bool, port string) string {
	group, attached := "", "security_group.web"
	if vpn {
		attached += ", security_group.vpn"
		group = `
security_group "vpn" {
  ingress "gre" {
    protocol    = "gre"
    cidr_blocks = ["198.51.100.7/32"]
  }
}
`
	}
	return group + `
security_group "web" {
  ingress "http" {
    protocol    = "tcp"
    ports       = [` + port + `]
    cidr_blocks = ["0.0.0.0/0"]
  }
  ingress "gre" {
    protocol    = "gre"
    cidr_blocks = ["198.51.100.8/32"]
  }
  egress "http" {
    protocol    = "tcp"
    ports       = ["0-65535"]
    cidr_blocks = ["0.0.0.0/0"]
  }
}

interface "eth0" {
  security_groups = [` + attached + `]
  notrack         = "off"
}
`
}

// An apply that was killed after its commit has not made the rules forget the
// flows that it cuts, nor lifted the rules that cut others. The next command does.
func TestKilledBeforeFlowsAreForgotten(t *testing.T) {
	requireNft(t)
	for _, next := range []string{"apply", "apply of another", "destroy"} {
		t.Run(next, func(t *testing.T) {
			s := newStage(t, true)
			begin := s.settings()
			s.write("web/web.hcl", tunnelsPolicy(true, "80"))
			s.write("next/web.hcl", tunnelsPolicy(false, "81"))
			s.write("another/web.hcl", tunnelsPolicy(false, "82"))
			s.mustRun("apply", "--auto-approve", s.dir+"/web")
			s.nft(`add element inet sgc flows.ipv4 { "eth0" . gre . 198.51.100.7, "eth0" . gre . 198.51.100.8 }`)
			flows := func() (peers []string) {
				text := s.nft("list set inet sgc flows.ipv4")
				for _, peer := range []string{"198.51.100.7", "198.51.100.8"} {
					if strings.Contains(text, peer) {
						peers = append(peers, peer)
					}
				}
				return peers
			}

			k, dir := s.open()
			session := &session{Streams: Streams{Err: io.Discard}, globals: globals{Netns: s.ns.Path()}}
			loaded := policies.Load(s.dir+"/next", policies.Inputs{})
			v, err := session.look(context.Background(), k, dir)
			if err != nil {
				t.Fatal(err)
			}
			p, err := newPlan(s.dir+"/next", loaded.Policy, v)
			if err == nil {
				err = session.addLive(context.Background(), k, p, conntrack.FlushCloud, 10, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.live.cut() != 1 || p.live.others != 1 || p.cutting == nil {
				t.Fatalf("the plan cuts %d flows, forgets %d", p.live.cut(), p.live.others)
			}
			r, err := p.record()
			if err == nil {
				err = dir.WriteAhead(r)
			}
			if err == nil {
				err = k.Commit(context.Background(), p.commitDelta())
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := flows(); len(got) != 2 {
				t.Errorf("the commit itself left %v", got)
			}
			s.mustRun("plan", s.dir+"/next")
			if got := flows(); len(got) != 2 {
				t.Errorf("a plan left %v", got)
			}

			switch next {
			case "apply":
				s.mustRun("apply", "--auto-approve", s.dir+"/next")
			case "apply of another":
				s.mustRun("apply", "--auto-approve", s.dir+"/another")
			case "destroy":
				s.mustRun("destroy", "--auto-approve")
				if tables := s.nft("list tables"); strings.Contains(tables, "inet sgc") {
					t.Errorf("after destroy there is %s", tables)
				}
				if now := s.settings(); !maps.Equal(now, begin) {
					t.Errorf("after destroy the kernel has %v, want %v", now, begin)
				}
				s.mustBeDestroyed(dir.Path())
				if r := s.mustRun("status"); r.out != "Nothing is enforced.\n" || r.err != "" {
					t.Errorf("after destroy status prints %q %q", r.out, r.err)
				}
				return
			}
			if got := flows(); !slices.Equal(got, []string{"198.51.100.8"}) {
				t.Errorf("left are %v", got)
			}
			if r := s.mustRun("status"); !strings.Contains(r.out, "drift\n  none\n") || r.err != "" {
				t.Errorf("status prints\n%s%s", r.out, r.err)
			}
			if pending, err := dir.Pending(); err != nil || pending != nil {
				t.Errorf("left is the pending record %v, %v", pending, err)
			}
		})
	}
}

// mustBeDestroyed expects the state directory to hold what it holds after an
// undisturbed destroy: no record, nothing of the settings.
func (s *stage) mustBeDestroyed(path string) {
	s.t.Helper()
	names := func() (out []string) {
		entries, err := os.ReadDir(path)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	got := names()
	s.mustRun("apply", "--auto-approve", s.dir+"/web")
	s.mustRun("destroy", "--auto-approve")
	if want := names(); !slices.Equal(got, want) {
		s.t.Errorf("the state directory holds %v, want %v", got, want)
	}
	for _, name := range got {
		if strings.HasSuffix(name, ".json") {
			s.t.Errorf("the state directory holds %s", name)
		}
	}
}
