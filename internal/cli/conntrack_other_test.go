package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

const (
	tunnelGRE flow.Protocol = 47
	tunnelESP flow.Protocol = 50
)

// tunnel is traffic of another protocol between two hosts, neither of which ever
// pauses.
type tunnel struct {
	// in and out count what arrives at the host, and at the peer.
	in, out atomic.Int64
}

func (n *tunnel) run(t *testing.T, p flow.Protocol, host, peer *lab.Namespace, local, remote string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ends := make(chan struct{}, 4)
	l, r := netip.MustParseAddr(local), netip.MustParseAddr(remote)
	running := 0
	for _, end := range []struct {
		ns       *lab.Namespace
		from, to netip.Addr
		count    *atomic.Int64
	}{{host, l, r, &n.in}, {peer, r, l, &n.out}} {
		raw, err := end.ns.OpenRaw(p, flow.FamilyOf(l), end.from)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		// A key, or what a protocol has in its place.
		body := []byte{0x20, 0, 8, 0, 0, 0, 0, 1}
		running += 2
		go func() {
			defer func() { ends <- struct{}{} }()
			for ctx.Err() == nil {
				_ = raw.Send(end.to, body) // EPERM is what a host gets that its own rules stop
				time.Sleep(time.Millisecond)
			}
		}()
		go func() {
			defer func() { ends <- struct{}{} }()
			b := make([]byte, 200)
			for {
				from, _, err := raw.Receive(ctx, b)
				if err != nil {
					return
				}
				if from == end.to {
					end.count.Add(1)
				}
			}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range running {
			<-ends
		}
	})
}

// passes waits until packets arrive at both ends, or until they arrive at neither,
// whichever is wanted. It reports whether they arrive.
func (n *tunnel) passes(t *testing.T, want bool) bool {
	t.Helper()
	const long, moment = 30 * time.Second, 300 * time.Millisecond
	in, out := n.in.Load(), n.out.Load()
	for end := time.Now().Add(long); time.Now().Before(end); {
		time.Sleep(moment)
		nowIn, nowOut := n.in.Load(), n.out.Load()
		if want && nowIn > in && nowOut > out {
			return true
		}
		if !want {
			if nowIn == in && nowOut == out {
				return false
			}
			in, out = nowIn, nowOut // it may have been on its way
		}
	}
	if want {
		t.Logf("%d packets arrive at the host, %d at the peer", n.in.Load()-in, n.out.Load()-out)
	}
	return !want
}

// A flush of flows of other protocols cuts those that no rule lets go on, whatever
// sgc remembers of them, while both ends go on sending; and no other.
func TestFlushCutsOtherProtocols(t *testing.T) {
	requireNft(t)
	s := newStage(t, true)
	peer := labtest.Namespace(t, "peer")
	address := func(list ...string) (out []netip.Prefix) {
		for _, a := range list {
			out = append(out, netip.MustParsePrefix(a))
		}
		return out
	}
	labtest.Connect(t,
		lab.End{Namespace: s.ns, Interface: "eth0", Addresses: address("192.0.2.10/24", "2001:db8::10/64")},
		lab.End{Namespace: peer, Interface: "eth0", Addresses: address("192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64")})
	policy := func(gre bool) {
		text := "security_group \"web\" {\n  ingress \"esp\" {\n    protocol         = \"esp\"\n    cidr_blocks      = [\"192.0.2.0/24\"]\n    ipv6_cidr_blocks = [\"2001:db8::/64\"]\n  }\n"
		if gre {
			text += "  ingress \"gre\" {\n    protocol         = \"gre\"\n    cidr_blocks      = [\"192.0.2.0/24\"]\n    ipv6_cidr_blocks = [\"2001:db8::/64\"]\n  }\n"
		}
		s.write("web/web.hcl", text+"}\ninterface \"eth0\" {\n  security_groups = [security_group.web]\n}\n")
		s.mustRun("apply", "--auto-approve", s.dir+"/web")
	}
	policy(true)
	flows := map[string]*tunnel{"gre": {}, "gre of another peer": {}, "gre over IPv6": {}, "esp": {}}
	flows["gre"].run(t, tunnelGRE, s.ns, peer, "192.0.2.10", "192.0.2.7")
	flows["gre of another peer"].run(t, tunnelGRE, s.ns, peer, "192.0.2.10", "192.0.2.8")
	flows["gre over IPv6"].run(t, tunnelGRE, s.ns, peer, "2001:db8::10", "2001:db8::7")
	flows["esp"].run(t, tunnelESP, s.ns, peer, "192.0.2.10", "192.0.2.7")
	alive := func(when string, want ...string) {
		t.Helper()
		for name, f := range flows {
			if passes := slices.Contains(want, name); f.passes(t, passes) != passes {
				t.Errorf("%s: %s passes: %t", when, name, !passes)
			}
		}
	}
	flush := func(want flushView, args ...string) {
		t.Helper()
		var got flushView
		r := s.mustRun(append([]string{"conntrack", "flush", "--auto-approve", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(r.out), &got); err != nil {
			t.Fatal(err)
		}
		if got.Remembered != want.Remembered || got.Forgotten != want.Forgotten || got.Deleted < want.Deleted {
			t.Errorf("flush %v: %+v, want %+v", args, got, want)
		}
	}
	alive("at the beginning", "gre", "gre of another peer", "gre over IPv6", "esp")
	policy(false)
	alive("without a rule", "gre", "gre of another peer", "gre over IPv6", "esp")
	if n := strings.TrimSpace(s.mustRun("conntrack", "list", "--revoked", "--count").out); n != "3" {
		t.Errorf("%s flows are revoked", n)
	}
	// Nothing of it concerns them.
	flush(flushView{}, "--port=47")
	flush(flushView{}, "--class=open")
	flush(flushView{}, "--protocol=gre", "--group=web")
	alive("after flushes of others", "gre", "gre of another peer", "gre over IPv6", "esp")
	flush(flushView{Remembered: 1, Forgotten: 1, Deleted: 1}, "--protocol=gre", "--cidr=192.0.2.8")
	alive("after the flush of a peer", "gre", "gre over IPv6", "esp")
	flush(flushView{Remembered: 2, Forgotten: 2, Deleted: 2}, "--revoked")
	alive("after the flush of all that is revoked", "esp")
	flush(flushView{Remembered: 1, Forgotten: 1, Deleted: 1}, "--rule=security_group.web.ingress.esp")
	alive("a rule lets it open anew", "esp")
	flush(flushView{}, "--revoked")
}

// What sgc remembers of a flow outlives its entry; list, explain and flush know it.
func TestOtherProtocolsWithoutEntries(t *testing.T) {
	requireNft(t)
	s := explainedScene(t)
	s.mustRun("apply", "--auto-approve", s.dir+"/old.hcl")
	s.mustRun("apply", "--auto-approve", s.dir+"/web.hcl")
	s.nft(`add element inet sgc flows.ipv4 { "eth0" . gre . 203.0.113.7 timeout 600s expires 500s, "eth0" . sctp . 198.51.100.8, "eth1" . esp . 10.1.0.7 timeout 600s expires 300s }`)
	s.run("conntrack -I -t 300 -p gre -s 203.0.113.7 -d 192.0.2.10 --srckey 1 --dstkey 2")
	lines := func(args ...string) string {
		t.Helper()
		return s.mustRun(append([]string{"conntrack", "list"}, args...)...).out
	}
	const (
		esp  = "eth1     either  esp 10.1.0.7                                   tracked 300s   no rule allows it any more (remembered by sgc)\n"
		gre  = "eth0     ingress gre 203.0.113.7 → 192.0.2.10                   tracked 500s   security_group.web.ingress.gre (unreplied)\n"
		sctp = "eth0     either  sctp 198.51.100.8                              tracked 600s   security_group.web.egress.any (remembered by sgc)\n"
	)
	remaining := regexp.MustCompile(`tracked \S+ +`) // of a whole minute there is less to write, and more space
	for args, want := range map[string]string{
		"--class=tracked":                       gre + sctp + esp,
		"--protocol=sctp":                       sctp,
		"--group=web":                           gre + sctp,
		"--revoked":                             esp,
		"--cidr=10.0.0.0/8":                     esp,
		"--interface=eth*":                      gre + sctp + esp,
		"--interface=eth1":                      esp,
		"--class=open":                          "",
		"--class=exempt":                        "",
		"--port=1000":                           "",
		"--protocol=tcp":                        "",
		"--rule=security_group.web.egress.any":  "eth0     either  gre 203.0.113.7                                tracked 500s   security_group.web.egress.any (remembered by sgc)\n" + sctp,
		"--rule=security_group.web.ingress.gre": gre,
	} {
		got := remaining.ReplaceAllStringFunc(lines(args), func(text string) string {
			left, err := time.ParseDuration(strings.Fields(text)[1])
			if err != nil {
				t.Fatal(err)
			}
			for _, had := range []time.Duration{300 * time.Second, 500 * time.Second, 600 * time.Second} {
				if left <= had && left > had-100*time.Second { // the clock goes on
					return fmt.Sprintf("%-15s", fmt.Sprintf("tracked %.0fs", had.Seconds()))
				}
			}
			return text
		})
		if got != want {
			t.Errorf("list %s prints\n%s\nwant\n%s", args, got, want)
		}
	}
	if got := s.mustRun("conntrack", "stats").out; !strings.Contains(got, "  remembered  3 IPv4, 0 IPv6, of 65,536 each") {
		t.Errorf("stats prints\n%s", got)
	}
	if got := s.mustRun("conntrack", "stats", "--prometheus").out; !strings.Contains(got, "\nconntrack_remembered_flows{family=\"ipv4\"} 3\n") {
		t.Errorf("stats --prometheus prints\n%s", got)
	}
	if got := lines("--count"); got != "3\n" {
		t.Errorf("count %s", got)
	}
	for _, e := range s.explain() {
		says := map[string][]string{
			"gre":  {"web.ingress.gre allows it", "are left", "makes sgc forget it, and deletes its entries", "goes on with its next packet, as security_group.web.ingress.gre and security_group.web.egress.any allow."},
			"sctp": {"egress.any allows it", "are left", "no entry of it", "goes on with the next packet that the host sends, as security_group.web.egress.any allows, and until then no other passes."},
			"esp":  {"No rule", "sgc remembers flows", "conntrack flush --revoked --protocol esp --cidr 10.1.0.7 makes sgc forget it", "that cuts it"},
		}[e.Protocol]
		for _, text := range says {
			if !strings.Contains(strings.ToLower(e.text()), strings.ToLower(text)) {
				t.Errorf("%s: it does not say %q:\n%s", e.Protocol, text, e.text())
			}
		}
		if e.Remaining == nil || *e.Remaining < 60 || len(says) == 0 {
			t.Errorf("%+v", e)
		}
	}
	r := s.sgc(context.Background(), strings.NewReader("no\n"), "conntrack", "flush", "--revoked")
	if r.code != 1 || !strings.Contains(r.err, "1 flow of protocols that sgc tracks by itself will be forgotten:\neth1     either  esp") {
		t.Errorf("%+v", r)
	}
	r = s.mustRun("conntrack", "flush", "--all", "--auto-approve")
	if r.out != "Deleted 1 conntrack entry, and forgot 3 flows of protocols that sgc tracks by itself.\n" {
		t.Errorf("flush prints %q", r.out)
	}
	if text := s.nft("list set inet sgc flows.ipv4"); strings.Contains(text, "elements") {
		t.Errorf("left is %s", text)
	}
	if got := s.mustRun("plan", s.dir+"/web.hcl").out; !strings.Contains(got, "No changes.") {
		t.Errorf("a plan says\n%s", got)
	}
	s.nft("delete table inet sgc")
	if got := lines("--class=tracked"); got != "" {
		t.Errorf("without a table, list prints %q", got)
	}
}
