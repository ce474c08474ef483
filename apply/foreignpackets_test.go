package apply

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sgc/internal/netns"
)

// TestNoPacketDiesUnannounced sends packets through random tables. Where one is
// dropped, Obstacles must have said so. The other way round it may say so
// without need: it does not know which packets come.
func TestNoPacketDiesUnannounced(t *testing.T) {
	t.Parallel()
	l, peer := newLab(t), newLab(t)
	connect(t, l, peer)
	l.nft(`table inet witness {
		chain arrives { type filter hook prerouting priority -400; udp dport 1-4 counter; }
		chain passes { type filter hook input priority 400; udp dport 1-4 counter; }
	}`)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	silent, announced, needless := 0, 0, 0
	for range 60 {
		script := randomForeign(rng)
		l.nft(script)
		around := l.snapshot().Around
		said := obstaclesText(around.Obstacles([]Device{{Name: "eth0", Indexes: []int{eth0Index}}}))
		dropped := 4 - l.send(peer, said == "")
		switch {
		case dropped > 0 && said == "":
			t.Fatalf("%d packets were dropped without a warning by\n%s", dropped, script)
		case said == "":
			silent++
		case dropped > 0:
			announced++
		default:
			needless++
		}
		l.nft("delete table inet a")
	}
	t.Logf("%d tables that drop nothing and are not warned of, %d that drop, %d warned of that drop none of these packets", silent, announced, needless)
	if silent == 0 || announced == 0 {
		t.Error("the tables are all alike")
	}
}

const eth0Index = 77

// connect joins eth0 of one namespace, 192.0.2.1, and eth0 of another,
// 192.0.2.2, which has no need to ask for the address of the first: that may be
// slow to answer, since the kernel lets a link send a while after it is up.
func connect(t *testing.T, l, peer *lab) {
	t.Helper()
	setUp := func(link netlink.Link, address string) error {
		p := netip.MustParsePrefix(address)
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	}
	within := func(l *lab, f func() error) {
		t.Helper()
		err := netns.Do(int(l.netns.Fd()), "", f)
		if err != nil {
			t.Fatal(err)
		}
	}
	var hardware net.HardwareAddr
	within(l, func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: eth0Index},
			PeerName:  "eth0", PeerNamespace: netlink.NsFd(peer.netns.Fd()),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		hardware = link.Attrs().HardwareAddr
		return setUp(link, "192.0.2.1/24")
	})
	within(peer, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := setUp(link, "192.0.2.2/24"); err != nil {
			return err
		}
		return netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.IPv4(192, 0, 2, 1), HardwareAddr: hardware,
		})
	})
}

var packetCount = regexp.MustCompile(`counter packets (\d+)`)

// counts returns how many packets have arrived and how many have passed.
func (l *lab) counts() (arrived, passed int) {
	l.t.Helper()
	out, err := l.run("", "nft", "list", "table", "inet", "witness")
	if err != nil {
		l.t.Fatal(err)
	}
	n := packetCount.FindAllStringSubmatch(out, -1)
	if len(n) != 2 {
		l.t.Fatalf("the witness says %s", out)
	}
	arrived, _ = strconv.Atoi(n[0][1])
	passed, _ = strconv.Atoi(n[1][1])
	return arrived, passed
}

// send sends four packets from the peer and returns how many passed. If all of
// them should, it waits for those that take long.
func (l *lab) send(peer *lab, all bool) int {
	l.t.Helper()
	arrivedBefore, passedBefore := l.counts()
	err := netns.Do(int(peer.netns.Fd()), "", func() error {
		for port := 1; port <= 4; port++ {
			c, err := net.Dial("udp", fmt.Sprintf("192.0.2.1:%d", port))
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	const within = 30 * time.Second
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		if arrived, _ := l.counts(); arrived == arrivedBefore+4 {
			break
		}
		if time.Now().After(end) {
			l.t.Fatal("the packets did not arrive")
		}
	}
	// A packet goes from one hook to the next without a pause, but what counts
	// at the second may be read before that, and the machine may stand still in
	// between.
	for end := time.Now().Add(within); ; {
		time.Sleep(2 * time.Millisecond)
		_, passed := l.counts()
		if passed -= passedBefore; !all || passed >= 4 || time.Now().After(end) {
			return passed
		}
	}
}

// randomForeign makes a table of a few chains. Chains lead to later ones only.
func randomForeign(rng *rand.Rand) string {
	const chains = 3
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	verdict := func(n int) string {
		if n < chains && rng.IntN(2) == 0 {
			return pick("jump ", "goto ") + fmt.Sprintf("c%d", n+1+rng.IntN(chains-n))
		}
		return pick("accept", "accept", "drop", "return")
	}
	names := []string{`"eth0"`, `"eth1"`, `"eth*"`, `"lo"`, `"e*"`, `"eth0*"`}
	exact := []string{`"eth0"`, `"eth1"`, `"lo"`}
	rule := func(n int) string {
		condition := ""
		for range rng.IntN(3) {
			switch rng.IntN(7) {
			case 0, 1:
				condition += "iifname " + pick("", "!= ") + pick(names...) + " "
			case 2:
				condition += "iifname " + pick("", "!= ") + "{ " + pick(exact...) + ", " + pick("\"eth1\"", "\"wan0\"") + " } "
			case 3:
				condition += "iif " + pick("", "!= ") + pick("lo", "eth0") + " "
			case 4:
				condition += pick("udp dport 1 ", "udp dport { 1, 2 } ", "udp dport 3-4 ", "meta l4proto udp ", "counter ")
			case 5:
				condition += pick("ct state invalid ", "ct state new ", "ct state { new, invalid } ")
			case 6:
				condition += "ip saddr " + pick("192.0.2.2", "198.51.100.1") + " "
			}
		}
		switch rng.IntN(5) {
		case 0:
			return condition + fmt.Sprintf(`iifname vmap { "eth0" : %s, "lo" : %s }`, verdict(n), verdict(n))
		case 1:
			return condition + fmt.Sprintf(`udp dport vmap { 1 : %s, 3-4 : %s }`, verdict(n), verdict(n))
		case 2:
			return condition + fmt.Sprintf(`ct state vmap { new : %s, invalid : drop }`, verdict(n))
		}
		return condition + verdict(n)
	}
	var b strings.Builder
	b.WriteString("table inet a {\n")
	for n := chains; n >= 0; n-- {
		fmt.Fprintf(&b, "\tchain c%d {\n", n)
		if n == 0 {
			fmt.Fprintf(&b, "\t\ttype filter hook %s priority 0; policy %s;\n", pick("prerouting", "input"), pick("accept", "accept", "drop"))
		}
		for range 1 + rng.IntN(3) {
			fmt.Fprintf(&b, "\t\t%s\n", rule(n))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}
