package conntrack

import (
	"context"
	"encoding/binary"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// bareReceive reads the table as fast as anybody can: it looks for the end of
// the dump and at nothing else.
func bareReceive(table *Table) error {
	c, err := table.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.request(messageGet, unix.NLM_F_DUMP, func(m *message) { m.family(unix.AF_UNSPEC) }); err != nil {
		return err
	}
	for {
		if _, err := c.receive(c.buf, true); err != nil {
			return err
		}
		if binary.NativeEndian.Uint16(c.buf[4:]) == unix.NLMSG_DONE {
			return nil
		}
	}
}

func BenchmarkRead(b *testing.B) {
	ns := hostNamespace(b)
	table := openTable(b, ns)
	create(b, table, 100_000, clients)
	policy := load(b, webPolicy)
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if err := bareReceive(table); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			n := 0
			if err := table.Entries(context.Background(), func(*Entry) error { n++; return nil }); err != nil || n != 100_000 {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("judge", func(b *testing.B) {
		for b.Loop() {
			n := 0
			var judged Judged
			routes, err := table.Routes()
			if err != nil {
				b.Fatal(err)
			}
			judge := NewJudge(policies.NewJudge(policy), routes)
			err = table.Entries(context.Background(), func(e *Entry) error {
				if err := judge.Entry(e, &judged); err != nil {
					return err
				}
				if judged.Class() == ClassOpen && !judged.Revoked() {
					n++
				}
				return nil
			})
			if err != nil || n != 100_000 {
				b.Fatal(n, err)
			}
			if err := routes.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("conntrack -L", func(b *testing.B) {
		for b.Loop() {
			if err := ns.Do(func() error { return exec.Command("conntrack", "-L").Run() }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	table := openTable(b, labtest.Namespace(b, "host"))
	create(b, table, 1, clients)
	c, err := table.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		b.Fatal(err)
	}
	defer c.close()
	var sample []byte
	if _, err := c.dump(messageGet, func(m *message) { m.family(unix.AF_UNSPEC) }, func(payload []byte) error {
		sample = append([]byte(nil), payload...)
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d bytes", len(sample))
	var e Entry
	for b.Loop() {
		if err := e.parse(sample); err != nil {
			b.Fatal(err)
		}
	}
}
