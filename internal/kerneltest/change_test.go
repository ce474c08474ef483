package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/ruleset"
)

// replaced are two policies that agree about port 22 from one network, and that
// nobody may reach port 19, and share nothing else, not even the name of a
// group.
var replaced = [2]string{`
security_group "a" {
  ingress "ssh" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["198.51.100.0/24"]
  }
  ingress "all" {
    protocol    = "udp"
    ports       = ["0-65535"]
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "all" {
    protocol         = "-1"
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["a"] }
`, `
prefix_list "many" {
  entries = [for n in range(1000) : cidrsubnet("10.0.0.0/8", 14, n * 2)]
}
security_group "b" {
  ingress "range" {
    protocol        = "tcp"
    ports           = ["20-30", 443]
    cidr_blocks     = ["198.51.100.0/25"]
    prefix_list_ids = [prefix_list.many]
  }
  ingress "rest" {
    protocol    = "tcp"
    ports       = ["22-24"]
    cidr_blocks = ["198.51.100.0/25", "198.51.0.0/16", "203.0.113.0/24"]
  }
}
security_group "c" {
  egress "all" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
interface "eth*" { security_groups = ["b", "c"] }
`}

// edited is the same policy before and after edits of its lists, addresses and
// ports.
func edited(list, cidrs, ports string) string {
	return fmt.Sprintf(`
prefix_list "many" {
  entries = [for n in range(1000) : cidrsubnet("%s", 14, n * 2)]
}
security_group "a" {
  ingress "ssh" {
    protocol        = "tcp"
    ports           = [%s]
    cidr_blocks     = [%s]
    prefix_list_ids = [prefix_list.many]
  }
}
interface "eth0" { security_groups = ["a"] }
`, list, ports, cidrs)
}

// What both policies allow passes, and what both refuse does not, while edits
// of lists, addresses and ports replace one by the other.
func TestNoPacketMeetsAHalfMadeEdit(t *testing.T) {
	t.Parallel()
	c := newChange(t, [2]string{
		edited("10.0.0.0/8", `"198.51.100.0/24", "203.0.113.0/25"`, `22, "8000-8999"`),
		edited("11.0.0.0/8", `"198.51.100.0/25", "203.0.113.128/25"`, `"22-23", "8500-8700"`),
	})
	c.run(t, 60)
	for _, w := range c.wrong {
		t.Errorf("%s: %s", &w.packet, w.outcome)
	}
}

// Between commits, policies that replace each other entirely are never mixed.
// Within one, the kernel shows a new interval set only some time after the rules
// that look into it, and takes the packets that are on their way through the old
// rules by the new elements; how many packets that concerned is logged.
//
// Source: Linux net/netfilter/nf_tables_api.c, nf_tables_commit: the generation
// changes before the sets' commit hooks run.
func TestReplacedPoliciesMeetOnlyWithinACommit(t *testing.T) {
	t.Parallel()
	c := newChange(t, replaced)
	c.run(t, 40)
	refused, let := 0, 0
	for _, w := range c.wrong {
		if !c.duringCommit(w.from, w.to) {
			t.Errorf("between commits: %s: %s", &w.packet, w.outcome)
		}
		if w.outcome.Passed {
			let++
		} else {
			refused++
		}
	}
	t.Logf("of %d packets, %d were wrongly refused and %d wrongly let through during the commits", c.asked, refused, let)
}

// change asks about packets while two policies take turns.
type change struct {
	stand   *lab.Stand
	kernel  *apply.Kernel
	tables  [2]*ruleset.Table
	judge   *lab.Judge
	asked   int
	wrong   []wrongAnswer
	commits []span
}

type span struct{ from, to time.Time }

type wrongAnswer struct {
	packet  flow.Packet
	outcome lab.Outcome
	span
}

func newChange(t *testing.T, texts [2]string) *change {
	t.Helper()
	s := labtest.Stand(t, standLocal, "eth0")
	c := &change{stand: s, kernel: openKernel(t, s.Host)}
	for i, text := range texts {
		c.tables[i] = compile.Compile(load(t, text), compile.Environment{})
	}
	commit(t, c.kernel, snapshot(t, c.kernel), c.tables[0])
	c.judge = labtest.Judge(t, s)
	return c
}

// run asks about packets that both policies allow, and that both refuse, until
// so many changes are over.
func (c *change) run(t *testing.T, changes int) {
	t.Helper()
	var probes []lab.Probe
	for n := range uint16(20) {
		p := packet("eth0", flow.Ingress, flow.TCP, "198.51.100.7", ports(10000+n, 22-n%2*3))
		probes = append(probes, lab.Probe{Packet: p})
	}
	changed := make(chan error, 1)
	go func() { changed <- c.alternate(changes) }()
	for {
		from := time.Now()
		outcomes, err := c.judge.Ask(probes)
		if err != nil {
			t.Fatal(err)
		}
		asked := span{from, time.Now()}
		c.asked += len(outcomes)
		for i, o := range outcomes {
			if p := probes[i].Packet; !o.Arrived || o.Passed != (p.DestPort == 22) {
				c.wrong = append(c.wrong, wrongAnswer{p, o, asked})
			}
		}
		select {
		case err := <-changed:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d packets met %d changes", c.asked, changes)
			return
		default:
		}
	}
}

// alternate applies the two policies in turn.
func (c *change) alternate(changes int) error {
	ctx := context.Background()
	for n := range changes {
		have, err := c.kernel.Snapshot(ctx, nil)
		if err != nil {
			return err
		}
		delta, err := apply.Diff(have, c.tables[(n+1)%2])
		if err != nil {
			return err
		}
		if delta.Empty() {
			return errors.New("the two policies are one")
		}
		from := time.Now()
		if err := c.kernel.Commit(ctx, delta); err != nil {
			return err
		}
		c.commits = append(c.commits, span{from, time.Now()})
	}
	return nil
}

func (c *change) duringCommit(from, to time.Time) bool {
	return slices.ContainsFunc(c.commits, func(s span) bool { return s.from.Before(to) && from.Before(s.to) })
}
