package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"sgc/internal/corpus"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// explained is what the tests read of an explanation in JSON.
type explained struct {
	Class     string     `json:"class"`
	Socket    string     `json:"socket"`
	Remaining *int       `json:"remaining_seconds"`
	Protocol  string     `json:"protocol"`
	Legs      []flowName `json:"legs"`
	Explained struct {
		Legs  []explainedLeg `json:"legs"`
		Held  *heldView      `json:"held"`
		Apply *struct {
			Fate   string `json:"fate"`
			Reason string `json:"reason"`
		} `json:"apply"`
		Sentences []string `json:"sentences"`
	} `json:"explanation"`
}

type explainedLeg struct {
	CutBy     []string   `json:"cut_by"`
	GoneSince *time.Time `json:"gone_since"`
	Sentences []string   `json:"sentences"`
}

// flowName names a flow where it crosses an interface, in explanations and in
// plans alike. Of flows of other protocols, plans know the peer alone.
type flowName struct {
	Interface  string     `json:"interface"`
	Peer       netip.Addr `json:"peer"`
	Direction  string     `json:"direction"`
	Protocol   string     `json:"protocol"`
	Source     netip.Addr `json:"source"`
	SourcePort uint16     `json:"source_port"`
	Dest       netip.Addr `json:"destination"`
	DestPort   uint16     `json:"destination_port"`
}

// text is everything that is said of it.
func (e *explained) text() string {
	var all []string
	for _, l := range e.Explained.Legs {
		all = append(all, l.Sentences...)
	}
	return strings.Join(append(all, e.Explained.Sentences...), "\n")
}

// explain runs the command and reads its JSON.
func (s *stage) explain(args ...string) []explained {
	s.t.Helper()
	r := s.mustRun(append([]string{"conntrack", "explain", "--json"}, args...)...)
	var out []explained
	for d := json.NewDecoder(strings.NewReader(r.out)); d.More(); {
		var e explained
		if err := d.Decode(&e); err != nil {
			s.t.Fatalf("%v\n%s", err, r.out)
		}
		if len(e.Legs) != len(e.Explained.Legs) {
			s.t.Errorf("%d legs, %d explained: %+v", len(e.Legs), len(e.Explained.Legs), e)
		}
		for i := range e.Legs {
			e.Legs[i].Protocol = e.Protocol
		}
		out = append(out, e)
	}
	return out
}

// planned returns what a plan says of live flows: fate and reason.
func (s *stage) planned(args ...string) map[flowName]string {
	s.t.Helper()
	r := s.mustRun(append([]string{"plan", "--json", "--flows=1000"}, args...)...)
	var plan struct {
		Live struct {
			Groups []struct {
				Fate   string     `json:"fate"`
				Reason string     `json:"reason"`
				Flows  []flowName `json:"flows"`
			} `json:"groups"`
		} `json:"live_flows"`
	}
	if err := json.Unmarshal([]byte(r.out), &plan); err != nil {
		s.t.Fatalf("%v\n%s", err, r.out)
	}
	out := map[flowName]string{}
	for _, g := range plan.Live.Groups {
		if g.Fate == fateDenied {
			continue // they have another fate as well
		}
		for _, f := range g.Flows {
			out[f] = g.Fate
			if strings.Contains(g.Reason, "deleted") {
				out[f] += ", group deleted"
			}
		}
	}
	return out
}

// asPlanned is a fate in the words of planned.
func (e *explained) asPlanned() string {
	switch a := e.Explained.Apply; {
	case a == nil:
		return "no word of an apply"
	case a.Fate == "stays":
		return ""
	case a.Fate == "lingers" && a.Reason == "adopted":
		return fateAdopted
	case a.Fate == "cut" && a.Reason == "group deleted":
		return fateCut + ", group deleted"
	default:
		return map[string]string{
			"cut": fateCut, "lingers": fateLingers, "becomes tracked": fateTracked, "becomes open": fateUntracked,
		}[a.Fate]
	}
}

// find returns what a plan says of the flow, by any of its legs.
func (e *explained) find(plan map[flowName]string) string {
	for _, l := range e.Legs {
		remembered := flowName{Interface: l.Interface, Protocol: l.Protocol, Peer: l.Source}
		if l.Direction == "egress" {
			remembered.Peer = l.Dest
		}
		if fate := plan[l] + plan[remembered]; fate != "" {
			return fate
		}
	}
	return ""
}

// explainedScene is the transcript's host, before any policy is enforced.
func explainedScene(t *testing.T) *stage {
	requireNft(t)
	archive, err := txtar.ParseFile("testdata/kernel-conntrack-explain.txtar")
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t, true)
	for _, f := range archive.Files {
		s.write(f.Name, string(f.Data))
	}
	s.script("setup.sh")
	return s
}

func (s *stage) script(name string) {
	s.t.Helper()
	if text := s.run("sh " + name); text != "" {
		s.t.Fatalf("%s: %s", name, text)
	}
}

// What explanations say that a change does, the plan of that change says, too.
func TestExplanationsAgreeWithPlans(t *testing.T) {
	s := explainedScene(t)
	path := func(name string) string { return s.dir + "/" + name }
	s.script("flows.sh")
	seen := map[string]int{}
	compare := func(when, to string) {
		t.Helper()
		plan := s.planned(path(to))
		for _, e := range s.explain(path(to)) {
			got, want := e.asPlanned(), e.find(plan)
			if got != want {
				t.Errorf("%s, to %s: %+v: %q, but the plan says %q", when, to, e.Legs, got, want)
			}
			seen[want]++
		}
	}
	compare("nothing is enforced", "old.hcl")
	compare("nothing is enforced", "next.hcl")
	s.mustRun("apply", "--auto-approve", path("old.hcl"))
	compare("an entry of GRE, and no flow", "web.hcl")
	s.nft(`add element inet sgc flows.ipv4 { "eth0" . gre . 203.0.113.7 }`)
	compare("the first policy", "web.hcl")
	compare("the first policy", "next.hcl")
	s.mustRun("apply", "--auto-approve", "--flush=none", path("web.hcl"))
	compare("the second policy", "next.hcl")
	compare("the second policy", "old.hcl")
	for _, fate := range []string{"", fateCut, fateCut + ", group deleted", fateLingers, fateAdopted, fateTracked, fateUntracked} {
		if seen[fate] == 0 {
			t.Errorf("no flow with the fate %q: %v", fate, seen)
		}
	}

	// What would cut each flow, one way after the other.
	flows := s.explain()
	gre := 0
	for _, e := range flows {
		if e.Protocol == "gre" {
			gre++
		}
	}
	if gre != 1 {
		t.Errorf("%d flows of GRE", gre)
	}
	cutBy := func(way string) (out []string) {
		for _, e := range flows {
			if slices.ContainsFunc(e.Explained.Legs, func(l explainedLeg) bool {
				return slices.ContainsFunc(l.CutBy, func(w string) bool { return w == way || strings.HasPrefix(w, way+" (") })
			}) {
				out = append(out, fmt.Sprint(e.Legs))
			}
		}
		slices.Sort(out)
		return out
	}
	cut := func(plan map[flowName]string, how string) (out []string) {
		for _, e := range flows {
			if fate := e.find(plan); strings.HasPrefix(fate, fateCut) && strings.HasSuffix(fate, how) {
				out = append(out, fmt.Sprint(e.Legs))
			}
		}
		slices.Sort(out)
		return out
	}
	if got, want := cutBy("sgc apply --flush revoked"), cut(s.planned("--flush=revoked", path("web.hcl")), ""); !slices.Equal(got, want) || len(got) < 3 {
		t.Errorf("--flush revoked cuts\n%s\nbut a plan says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	policy := s.load("web.hcl")
	for _, group := range policy.Groups {
		without := *policy
		without.Groups, without.Interfaces = nil, nil
		for _, g := range policy.Groups {
			if g != group {
				without.Groups = append(without.Groups, g)
			}
		}
		for _, i := range policy.Interfaces {
			bare := *i
			bare.Groups = slices.DeleteFunc(slices.Clone(i.Groups), func(name string) bool { return name == group.Name })
			without.Interfaces = append(without.Interfaces, &bare)
		}
		s.write("without/all.hcl", corpus.HCL(&without))
		got, want := cutBy("deleting "+group.Address()), cut(s.planned(path("without")), "group deleted")
		if tunnel := slices.ContainsFunc(got, func(name string) bool { return strings.Contains(name, " gre ") }); tunnel != (group.Name == "web") {
			t.Errorf("deleting %s cuts the tunnel: %t", group.Name, tunnel)
		}
		if !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("deleting %s cuts\n%s\nbut a plan says\n%s", group.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestExplanationsThatCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	defer full.Close()
	s := explainedScene(t)
	s.script("flows.sh")
	for _, command := range [][]string{{"explain"}, {"explain", "--json"}, {"list", "--verbose"}} {
		cmd := s.child(append(append([]string{"conntrack"}, command...), s.dir+"/web.hcl")...)
		cmd.Stdout = full
		s.mustFail(outcome(t, cmd), "write the output")
	}
}

// Flows that the kernel does not track have no entry. The sockets of the host
// tell of them.
func TestExplainFlowsWithoutEntries(t *testing.T) {
	requireNft(t)
	s := newStage(t, true)
	peer := labtest.Namespace(t, "peer")
	labtest.Connect(t,
		lab.End{Namespace: s.ns, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}},
		lab.End{Namespace: peer, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}})
	policy := func(ports string) string {
		return fmt.Sprintf(`security_group "web" {
  ingress "udp" {
    protocol    = "udp"
    ports       = [%s]
    cidr_blocks = ["0.0.0.0/0"]
  }
  ingress "ssh" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["192.0.2.0/24"]
  }
  egress "any" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

interface "eth0" {
  security_groups = [security_group.web]
}

host {
  dns_resolvers = ["192.0.2.2"]
}
`, ports)
	}
	s.write("web/web.hcl", policy("53"))
	s.write("next/web.hcl", policy("54"))
	s.mustRun("apply", "--auto-approve", s.dir+"/web")
	inside := func(ns *lab.Namespace, f func() error) {
		t.Helper()
		if err := ns.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	connect := func(local, remote string) {
		t.Helper()
		inside(s.ns, func() error {
			c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(remote)))
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		})
	}
	connect("192.0.2.10:53", "192.0.2.7:10000")  // open
	connect("192.0.2.10:40000", "192.0.2.7:123") // tracked
	connect("192.0.2.10:40001", "192.0.2.2:53")  // exempt
	var listener net.Listener
	inside(s.ns, func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp4", "192.0.2.10:22")
		return err
	})
	defer listener.Close()
	var client net.Conn
	inside(peer, func() (err error) {
		client, err = net.Dial("tcp4", "192.0.2.10:22")
		return err
	})
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	arrives := func(within time.Duration) error {
		t.Helper()
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := server.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := server.Read(make([]byte, 1))
		return err
	}
	one := func(args ...string) explained {
		t.Helper()
		all := s.explain(args...)
		if len(all) != 1 {
			t.Fatalf("explain %v: %+v", args, all)
		}
		return all[0]
	}
	check := func(e explained, class, socket string, says ...string) {
		t.Helper()
		if e.Class != class || e.Socket != socket || (e.Remaining == nil) != (socket != "") {
			t.Errorf("%+v, want class %s and socket %q", e, class, socket)
		}
		for _, text := range says {
			if !strings.Contains(e.text(), text) {
				t.Errorf("it does not say %q:\n%s", text, e.text())
			}
		}
	}
	check(one("--port=53", "--class=open"), "open", "connected",
		"Open: security_group.web.ingress.udp is open to 0.0.0.0/0", "does not track it (notrack)", "no timeout", "ends with its rule")
	check(one("--port=123"), "tracked", "connected", "no entry of it: it is idle", "egress.any allows it")
	check(one("--class=exempt"), "exempt", "connected", "is in host.dns_resolvers", "needs none")
	check(one("--port=22"), "tracked", "", "sgc conntrack flush --protocol tcp --cidr 192.0.2.7 --port 22 deletes its entry", "that cuts it")

	if r := s.mustRun("conntrack", "list", "--verbose", "--protocol=udp"); r.out != "" {
		t.Errorf("list shows what has no entry: %s", r.out)
	}

	// Another policy cuts what is open, as its plan says.
	for _, e := range s.explain(s.dir + "/next") {
		if got, want := e.asPlanned(), e.find(s.planned(s.dir+"/next")); got != want || (want == fateCut) != (e.Legs[0].DestPort == 53 && e.Legs[0].Direction == "ingress") {
			t.Errorf("%+v: %q, but the plan says %q", e.Legs, got, want)
		}
	}

	// A deleted entry ends a connection, as was said.
	if err := arrives(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	s.mustRun("conntrack", "flush", "--protocol=tcp", "--cidr=192.0.2.7", "--port=22", "--auto-approve")
	if err := arrives(time.Second); err == nil {
		t.Error("a segment passes without an entry")
	}
	check(one("--port=22"), "tracked", "established", "none is a SYN")
	s.nft("delete table inet sgc")
	check(one("--port=53", "--class=open"), "open", "connected", "an apply makes one")
}
