package kerneltest

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// listPolicy allows HTTPS from n prefixes, and one more from each of extra.
func listPolicy(n int, extra ...string) *policies.Policy {
	l := &policies.PrefixList{Name: "many"}
	for i := range n {
		a := netip.AddrFrom4([4]byte{byte(10 + i>>20), byte(i >> 12), byte(i >> 4), byte(i << 4)})
		l.Entries = append(l.Entries, netip.PrefixFrom(a, 29))
	}
	for _, e := range extra {
		l.Entries = append(l.Entries, netip.MustParsePrefix(e))
	}
	return &policies.Policy{
		Groups: []*policies.Group{{Name: "web", Rules: []*policies.Rule{{
			Group: "web", Direction: flow.Ingress, ID: "https", Protocol: flow.TCP,
			Ports: []flow.PortRange{{First: 443, Last: 443}}, Lists: []string{"many"},
		}}}},
		Lists:      []*policies.PrefixList{l},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"web"}}},
	}
}

// rulesPolicy has n rules, each with a port and a prefix of its own.
func rulesPolicy(n int) *policies.Policy {
	g := &policies.Group{Name: "web"}
	for i := range n {
		g.Rules = append(g.Rules, &policies.Rule{
			Group: "web", Direction: flow.Ingress, ID: fmt.Sprintf("r%05d", i), Protocol: flow.TCP,
			Ports:    []flow.PortRange{{First: uint16(1000 + i*3), Last: uint16(1000 + i*3)}},
			Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
		})
	}
	return &policies.Policy{Groups: []*policies.Group{g}, Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"web"}}}}
}

// spent is the processor time of the calling thread, in the kernel and outside.
// It hardly depends on what else the machine does.
func spent(b testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// deltaTo returns what brings a namespace to a policy.
func deltaTo(b *testing.B, k *apply.Kernel, p *policies.Policy) *apply.Delta {
	have, err := k.Snapshot(context.Background(), nil)
	if err != nil {
		b.Fatal(err)
	}
	d, err := apply.Diff(have, compile.Compile(p, compile.Environment{}))
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// BenchmarkFirstApply compares the commit of a policy with 100,000 CIDRs with
// nft -f of what the policy compiles to, in processor time.
func BenchmarkFirstApply(b *testing.B) {
	p := listPolicy(100_000)
	var script bytes.Buffer
	if err := compile.Compile(p, compile.Environment{}).WriteText(&script); err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var own, nft time.Duration
	for b.Loop() {
		one, other := labtest.Namespace(b, "one"), labtest.Namespace(b, "other")
		k := openKernel(b, one)
		start := spent(b)
		if err := k.Commit(context.Background(), deltaTo(b, k, p)); err != nil {
			b.Fatal(err)
		}
		own += spent(b) - start
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = bytes.NewReader(script.Bytes())
		if err := other.Do(cmd.Run); err != nil {
			b.Fatal(err)
		}
		nft += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	b.ReportMetric(nft.Seconds()/own.Seconds(), "nft/sgc")
}

// BenchmarkNoOpPlan measures snapshot, compile and diff of a policy that is
// enforced already.
func BenchmarkNoOpPlan(b *testing.B) {
	for name, p := range map[string]*policies.Policy{"100000 CIDRs": listPolicy(100_000), "10000 rules": rulesPolicy(10_000)} {
		b.Run(name, func(b *testing.B) {
			k := openKernel(b, labtest.Namespace(b, "host"))
			if err := k.Commit(context.Background(), deltaTo(b, k, p)); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if !deltaTo(b, k, p).Empty() {
					b.Fatal("something is to be done")
				}
			}
		})
	}
}

// BenchmarkOneMoreCIDR compares the transaction that adds one CIDR to 100,000
// with the one that brought them, in bytes and in processor time.
func BenchmarkOneMoreCIDR(b *testing.B) {
	k := openKernel(b, labtest.Namespace(b, "host"))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	commit := func(d *apply.Delta) time.Duration {
		start := spent(b)
		if err := k.Commit(context.Background(), d); err != nil {
			b.Fatal(err)
		}
		return spent(b) - start
	}
	first := deltaTo(b, k, listPolicy(100_000))
	whole := commit(first)
	var commits time.Duration
	var bytes, n int
	for b.Loop() {
		var extra []string
		if n%2 == 0 {
			extra = []string{"172.16.0.1/32"}
		}
		d := deltaTo(b, k, listPolicy(100_000, extra...))
		commits += commit(d)
		bytes += d.Bytes()
		n++
	}
	b.ReportMetric(float64(first.Bytes())/(float64(bytes)/float64(n)), "bytes-ratio")
	b.ReportMetric(whole.Seconds()/(commits.Seconds()/float64(n)), "time-ratio")
}
