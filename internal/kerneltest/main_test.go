package kerneltest

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/ruleset"
	"sgc/policies"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, prefix(s))
	}
	return out
}

// enforce compiles the policy for the namespace as it is, what other tables
// need of conntrack included, and makes it the kernel's.
func enforce(t testing.TB, ns *lab.Namespace, p *policies.Policy) compile.Environment {
	t.Helper()
	k := openKernel(t, ns)
	have := snapshot(t, k)
	env := compile.Environment{Conntrack: map[flow.Family]string{}}
	for f, reasons := range map[flow.Family][]string{flow.IPv4: have.Foreign.IPv4, flow.IPv6: have.Foreign.IPv6} {
		if len(reasons) > 0 {
			env.Conntrack[f] = reasons[0]
		}
	}
	commit(t, k, have, compile.Compile(p, env))
	return env
}

func openKernel(t testing.TB, ns *lab.Namespace) *apply.Kernel {
	t.Helper()
	k, err := apply.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func snapshot(t testing.TB, k *apply.Kernel) *apply.Snapshot {
	t.Helper()
	have, err := k.Snapshot(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// commit makes the kernel's table the wanted one, nil for none, and checks that
// nothing is left to do.
func commit(t testing.TB, k *apply.Kernel, have *apply.Snapshot, want *ruleset.Table) {
	t.Helper()
	delta, err := apply.Diff(have, want)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Commit(context.Background(), delta); err != nil {
		t.Fatal(err)
	}
	rest, err := apply.Diff(snapshot(t, k), want)
	if err != nil {
		t.Fatal(err)
	}
	for c := range rest.Changes() {
		t.Fatalf("the kernel is not what was committed: %s %s %s %s", c.Action, c.Kind, c.Name, c.Text)
	}
}

// describe is the policy as text, for disagreements.
func describe(p *policies.Policy) string {
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// wantsNotrack says whether the kernel is to leave the packet alone (2.3): it
// belongs to an open flow, begins or ends on the host itself, and nothing else
// needs conntrack.
func wantsNotrack(judge *policies.Judge, env compile.Environment, p *flow.Packet) bool {
	i := judge.Interface(p.Interface)
	return i != nil && !i.NotrackOff && env.Conntrack[p.Family()] == "" && !p.Forwarded && judge.Open(p)
}
