package kerneltest

import (
	"bytes"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// wasOpen leaves everything open but for the office, whose flows are tracked.
const wasOpen = `
security_group "all" {
  ingress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth%s" {
  security_groups = ["all"]
  notrack         = "%s"
  always_track "office" {
    cidr_blocks      = ["203.0.113.1/32"]
    ipv6_cidr_blocks = ["2001:db8:78::1/128"]
  }
}
`

// isClosed leaves one neighbour on the ports 8000 and 8080, everybody on 8001
// and 8081, and lets only flows to port 9001 out.
func isClosed() string {
	var b strings.Builder
	b.WriteString("security_group \"some\" {\n")
	for _, proto := range []string{"tcp", "udp"} {
		fmt.Fprintf(&b, `
  ingress "%[1]s-narrow" {
    protocol         = "%[1]s"
    ports            = [8000, 8080]
    cidr_blocks      = ["192.0.2.20/32"]
    ipv6_cidr_blocks = ["2001:db8:2::20/128"]
  }
  ingress "%[1]s-all" {
    protocol         = "%[1]s"
    ports            = [8001, 8081]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "%[1]s-all" {
    protocol         = "%[1]s"
    ports            = [9001]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }`, proto)
	}
	b.WriteString("\n}\ninterface \"eth0\" {\n  security_groups = [\"some\"]\n  notrack = \"off\"\n}\n")
	return b.String()
}

var neighbourOf = map[flow.Family]netip.Addr{flow.IPv4: addr("192.0.2.20"), flow.IPv6: addr("2001:db8:2::20")}

// check expects that what is cut is cut and everything else goes on, at the ends
// and on eth0's wire.
func (s *scene) check(t *testing.T, when string, talks []*talked, cutting bool) {
	t.Helper()
	for _, c := range talks {
		if !c.cut || !cutting {
			c.goesOn(t, when)
		}
	}
	if !cutting {
		return
	}
	if fallsSilent(func() (heard uint64) {
		for _, c := range talks {
			if c.cut {
				heard += c.heard()
			}
		}
		return heard
	}) > 0 {
		for _, c := range talks {
			if c.cut {
				c.isCut(t, when)
			}
		}
	}
	for _, c := range talks {
		if !s.tracked(t, &c.opened) {
			t.Errorf("%s: %s has no entry, and so says nothing of what refuses it", when, c.chat.name)
		}
	}
}

// The commit itself cuts flows that stayed in conntrack although the policy
// left them open: no packet passes any more, in either direction, while their
// entries are still there; and it is the temporary rules that do it.
func TestTheCommitCutsWhatWasOpen(t *testing.T) {
	t.Parallel()
	for _, f := range flow.Families {
		for _, wildcard := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, wildcard %t", f, wildcard), func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				name := "0"
				if wildcard {
					name = "*"
				}
				at := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
				host, inside := hostOf[f], insideOf[f]
				world, office, neighbour := worldOf[f], officeOf[f], neighbourOf[f]
				var ways []way
				in := func(name string, to *lab.Namespace, client, server netip.Addr, port uint16, cut bool) {
					ways = append(ways, way{name: name, from: s.client, to: to, opened: flow.Ingress, client: client,
						dial: at(server, port), server: at(server, port), cut: cut})
				}
				out := func(name string, from *lab.Namespace, client, server netip.Addr, port uint16, cut bool) {
					ways = append(ways, way{name: name, from: from, to: s.client, opened: flow.Egress, client: client,
						dial: at(server, port), server: at(server, port), cut: cut})
				}
				in("in to a closed port", s.host, world, host, 8000, true)
				in("in to the closed port, of a client that it is open to", s.host, neighbour, host, 8000, false)
				in("in to another port", s.host, world, host, 8001, false)
				in("in, tracked", s.host, office, host, 8000, false)
				in("through to a closed port", s.inside, world, inside, 8000, true)
				in("through to another port", s.inside, world, inside, 8001, false)
				out("out to a closed port", s.host, host, world, 9000, true)
				out("out to another port", s.host, host, world, 9001, false)
				out("out, tracked", s.host, host, office, 9000, false)
				out("out from inside to a closed port", s.inside, inside, world, 9000, true)
				out("out from inside to another port", s.inside, inside, world, 9001, false)
				s.commitsCut(t, load(t, fmt.Sprintf(wasOpen, name, "off")), load(t, isClosed()), ways)
			})
		}
	}
}

// Published ports and masqueraded flows are cut by what is on the wire.
func TestTheCommitCutsTranslatedFlows(t *testing.T) {
	t.Parallel()
	for _, f := range flow.Families {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
				publish(t, s.host, f, protocol, 8080, 80)
				publish(t, s.host, f, protocol, 8081, 81)
			}
			masquerade(t, s.host, f)
			published := func(name string, client netip.Addr, port uint16, cut bool) way {
				return way{name: name, from: s.client, to: s.inside, opened: flow.Ingress, client: client,
					dial: netip.AddrPortFrom(hostOf[f], port), server: netip.AddrPortFrom(insideOf[f], port-8000), cut: cut}
			}
			masqueraded := func(name string, port uint16, cut bool) way {
				to := netip.AddrPortFrom(worldOf[f], port)
				return way{name: name, from: s.inside, to: s.client, opened: flow.Egress, client: insideOf[f],
					dial: to, server: to, hidden: hostOf[f], cut: cut}
			}
			s.commitsCut(t, load(t, fmt.Sprintf(wasOpen, "0", "auto")), load(t, isClosed()), []way{
				published("to a closed published port", worldOf[f], 8080, true),
				published("to the published port, of a client that it is open to", neighbourOf[f], 8080, false),
				published("to another published port", worldOf[f], 8081, false),
				masqueraded("masqueraded to a closed port", 9000, true),
				masqueraded("masqueraded to another port", 9001, false),
			})
		})
	}
}

// commitsCut opens chats under the old policy, commits the new one, first with
// what it closes and then without, and expects that the first commit cuts and
// the second, which does no more than lift, lets everything through again.
func (s *scene) commitsCut(t *testing.T, old, next *policies.Policy, ways []way) {
	t.Helper()
	env := enforce(t, s.host, old)
	talks := s.open(t, ways)
	s.check(t, "while it is open", talks, false)

	k := openKernel(t, s.host)
	cutting := env
	cutting.Closing = old
	commit(t, k, snapshot(t, k), compile.Compile(next, cutting))
	var cut []*chat
	for _, c := range talks {
		if c.cut {
			cut = append(cut, &chat{name: c.chat.name, client: c.far()})
		}
	}
	wire := newCrossings(t, s.host, "eth0", cut)
	s.check(t, "after the commit", talks, true)
	for _, d := range flow.Directions {
		for i, n := range wire.count(t, d) {
			if n > 0 {
				t.Errorf("%s: %d packets came past the rules, %s", cut[i].name, n, d)
			}
		}
	}

	have := snapshot(t, k)
	peace := compile.Compile(next, env)
	onlyLifts(t, have, peace)
	commit(t, k, have, peace)
	s.check(t, "after the cut was lifted although the entries are there", talks, false)
}

// onlyLifts expects that nothing is left to do but to take away what is
// temporary.
func onlyLifts(t *testing.T, have *apply.Snapshot, peace *ruleset.Table) {
	t.Helper()
	for c := range changes(t, have, peace) {
		rule := c.Kind == apply.RuleKind && strings.Contains(c.Text, " jump _cut.")
		if c.Action != apply.Remove || !rule && !compile.IsTemporary(c.Name) {
			t.Errorf("lifting the cut does more: %s %s %s: %s, was %s", c.Action, c.Kind, c.Name, c.Text, c.Was)
		}
	}
}

// What cuts is committed as it was compiled, nft reads its text as the same, and
// lifting it takes away nothing but what is temporary.
func TestTheKernelTakesWhatCuts(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "host")
	k := openKernel(t, ns)
	first := uint64(envNumber(t, "SGC_KERNEL_SEED", 1))
	options := corpus.Options{AlwaysTrack: true, Logs: true, ACLs: true}
	closing := 0
	for seed := first; seed < first+25; seed++ {
		r := corpus.Seeded(seed)
		old, next := corpus.Policy(r, options), corpus.Policy(r, options)
		if !compile.Closes(old, next) {
			continue
		}
		closing++
		peace, table := compile.Compile(next, compile.Environment{}), compile.Compile(next, compile.Environment{Closing: old})
		commit(t, k, snapshot(t, k), table)
		nftAgrees(t, ns, table)
		have := snapshot(t, k)
		for c := range changes(t, have, table) {
			t.Errorf("nft reads the text as another table: %v %v %s: %s, was %s", c.Action, c.Kind, c.Name, c.Text, c.Was)
		}
		onlyLifts(t, have, peace)
		commit(t, k, have, peace)
		if t.Failed() {
			t.Fatalf("SGC_KERNEL_SEED=%d", seed)
		}
	}
	if closing < 5 {
		t.Errorf("only %d of 25 pairs of policies closed anything", closing)
	}
}

// nftAgrees replaces the namespace's table by what nft makes of its text, where
// there is an nft that may.
func nftAgrees(t *testing.T, ns *lab.Namespace, table *ruleset.Table) {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil || lab.InUserNamespace(os.Environ()) {
		t.Logf("nft is not asked: %v", err)
		return
	}
	var script bytes.Buffer
	if err := table.WriteText(&script); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nft, "-f", "-")
	cmd.Stdin = &script
	var out []byte
	if err := ns.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

func changes(t *testing.T, have *apply.Snapshot, want *ruleset.Table) iter.Seq[apply.Change] {
	t.Helper()
	d, err := apply.Diff(have, want)
	if err != nil {
		t.Fatal(err)
	}
	return d.Changes()
}
