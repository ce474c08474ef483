package conntrack

import (
	"context"
	"strings"
	"testing"
	"time"

	"sgc/policies"
)

const timeoutPolicy = `
security_group "all" {
  ingress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}

interface "eth0" {
  security_groups = [security_group.all]
  always_track "balancers" {
    cidr_blocks             = ["203.0.113.0/24"]
    tcp_established_timeout = 330
  }
  connection_tracking {
    tcp_established_timeout = 350
    udp_timeout             = 60
    udp_stream_timeout      = 120
  }
}

interface "br0" {
  security_groups = [security_group.all]
  connection_tracking {
    tcp_established_timeout = 310
  }
}

host {
  conntrack {
    icmp_timeout    = 290
    generic_timeout = 500
  }
  dns_resolvers = ["198.51.100.53"]
  exempt        = ["198.51.100.99"]
}
`

func TestLongLivedEntriesAreShortened(t *testing.T) {
	host := hostNamespace(t)
	table := openTable(t, host)
	long := func(s seed) seed { s.seconds = 432000; return s }
	unassured := func(s seed) seed { s.status &^= Assured; return s }
	inState := func(s seed, state TCPState) seed { s.tcp = state; return s }
	p := load(t, timeoutPolicy)
	judge := judgeOf(t, table, p)
	limits := NewLimits(p, policies.NewJudge(p))
	for _, tc := range []struct {
		name string
		seed seed
		want time.Duration // 0 is unchanged
	}{
		{"a connection", long(tcpSeed("198.51.100.1:1", "192.0.2.10:80")), 350 * time.Second},
		{"a connection of IPv6", long(tcpSeed("[2001:db8:1::1]:1", "[2001:db8::10]:80")), 350 * time.Second},
		{"a connection of a balancer", long(tcpSeed("203.0.113.1:1", "192.0.2.10:80")), 330 * time.Second},
		{"a connection that is shorter already", lasting(tcpSeed("198.51.100.2:1", "192.0.2.10:80"), 300), 0},
		{"a connection that ends", inState(long(tcpSeed("198.51.100.3:1", "192.0.2.10:80")), TCPFinWait), 0},
		{"a routed connection ends where it is forgotten first", long(natted("198.51.100.4:1", "192.0.2.10:80", "172.17.0.2:80", "198.51.100.4:1")), 310 * time.Second},
		{"a stream of UDP", long(udpSeed("198.51.100.5:1", "192.0.2.10:53")), 120 * time.Second},
		{"other UDP", long(unassured(udpSeed("198.51.100.6:1", "192.0.2.10:53"))), 60 * time.Second},
		{"a ping", long(pingSeed("198.51.100.7", "192.0.2.10", 1)), 290 * time.Second},
		{"a ping of IPv6", long(pingSeed("2001:db8:1::7", "2001:db8::10", 1)), 290 * time.Second},
		{"another protocol", long(otherSeed("198.51.100.8", "192.0.2.10", 50)), 500 * time.Second},
		{"a protocol with a tracker of its own", long(greSeed("198.51.100.8:9", "192.0.2.10:9")), 0},
		{"a question to a resolver, which no rule gives a timeout", long(udpSeed("192.0.2.10:1", "198.51.100.53:53")), 0},
		{"other UDP with a resolver", long(udpSeed("192.0.2.10:1", "198.51.100.53:54")), 120 * time.Second},
		{"an exempt peer", long(tcpSeed("198.51.100.99:1", "192.0.2.10:80")), 0},
		{"a ping of an exempt peer", long(pingSeed("198.51.100.99", "192.0.2.10", 1)), 0},
		{"a peer that is exempt on its own side alone", long(natted("198.51.100.99:1", "192.0.2.10:80", "172.17.0.2:80", "192.0.2.10:1")), 310 * time.Second},
		{"the loopback", long(tcpSeed("127.0.0.1:1", "127.0.0.1:80")), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := time.Duration(tc.seed.seconds) * time.Second
			want, done := tc.want, 1
			if want == 0 {
				want, done = before, 0
			}
			for ended := true; ended; {
				begin := time.Now()
				createSeeds(t, table, tc.seed)
				r, err := table.Shorten(context.Background(), judge, limits)
				if err != nil {
					t.Fatal(err)
				}
				all := read(t, table)
				// The machine may stand still until the shortest have ended.
				if ended = len(all) == 0 && time.Since(begin) >= want; ended {
					continue
				}
				if len(all) != 1 {
					t.Fatalf("%v", all)
				}
				if e := &all[0]; !e.remains(want, begin) || r != (Result{Done: done}) {
					t.Errorf("%s: remains %s of %s, %+v; want %s", &e.Original, e.Remaining, before, r, want)
				}
			}
			if _, err := table.inBatches(func(b *Batch) error { return table.Entries(context.Background(), b.Delete) }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// greSeed is a tunnel with a key.
func greSeed(from, to string) seed {
	s := udpSeed(from, to)
	s.original.Protocol, s.reply.Protocol = protocolGRE, protocolGRE
	return s
}

func lasting(s seed, seconds uint32) seed {
	s.seconds = seconds
	return s
}

func TestEntriesThatNobodyMayShorten(t *testing.T) {
	p := load(t, timeoutPolicy)
	limits := NewLimits(p, policies.NewJudge(p))
	var judged Judged
	if err := judgeOf(t, openTable(t, hostNamespace(t)), p).Entry(entryOf(tcpSeed("198.51.100.1:1", "192.0.2.10:80")), &judged); err != nil {
		t.Fatal(err)
	}
	for status, want := range map[Status]time.Duration{
		Assured: 350 * time.Second, Assured | FixedTimeout: 0, Assured | Offload: 0, Assured | HardwareOffload: 0,
	} {
		e := Entry{Status: status, TCPState: TCPEstablished}
		if got := limits.Of(&e, &judged); got != want {
			t.Errorf("%s: %s, want %s", status, got, want)
		}
	}
}

// A policy that names no timeouts has those of the language for TCP and UDP, and
// none for the rest.
func TestLimitsOfAPolicyThatIsSilent(t *testing.T) {
	p := load(t, strings.Replace(webPolicy, `"tcp"`, `"udp"`, 1))
	table := openTable(t, hostNamespace(t))
	judge, limits := judgeOf(t, table, p), NewLimits(p, policies.NewJudge(p))
	for _, tc := range []struct {
		seed seed
		want time.Duration
	}{
		{tcpSeed("198.51.100.1:1", "192.0.2.10:80"), 432000 * time.Second},
		{udpSeed("198.51.100.1:1", "192.0.2.10:80"), 180 * time.Second},
		{pingSeed("198.51.100.1", "192.0.2.10", 1), 0},
		{otherSeed("198.51.100.1", "192.0.2.10", 99), 0},
	} {
		var judged Judged
		if err := judge.Entry(entryOf(tc.seed), &judged); err != nil {
			t.Fatal(err)
		}
		if got := limits.Of(entryOf(tc.seed), &judged); got != tc.want {
			t.Errorf("%s: %s, want %s", &tc.seed.original, got, tc.want)
		}
	}
}
