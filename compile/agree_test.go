package compile_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sgc/compile"
	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/internal/nftvm"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// packetsPerPolicy is how many packets are tried on each random policy.
const packetsPerPolicy = 400

// TestDecideAgreesWithTheCompiledRules holds the meaning of random policies
// against what is compiled of them, on packets at their borders. Set
// SGC_AGREE_PACKETS for another number of packets, and SGC_AGREE_SEED for
// another first policy.
func TestDecideAgreesWithTheCompiledRules(t *testing.T) {
	packets := envNumber(t, "SGC_AGREE_PACKETS", 160_000)
	first := envNumber(t, "SGC_AGREE_SEED", 1)
	seen := map[string]int{}
	for n := range uint64(max(1, packets/packetsPerPolicy)) {
		seed := uint64(first) + n
		if err := agree(corpus.Seeded(seed), packetsPerPolicy, seen); err != nil {
			t.Fatalf("SGC_AGREE_SEED=%d SGC_AGREE_PACKETS=%d\n%v", seed, packetsPerPolicy, err)
		}
	}
	// A corpus that never gets to some clause would agree about it, too.
	for _, kind := range corpus.Every() {
		if seen[kind]*4000 < packets {
			t.Errorf("only %d of %d packets were %s", seen[kind], packets, kind)
		}
	}
	for _, kind := range []string{"none", "unmanaged", "exempt", "tracked", "untracked", "related", "stateless", "notrack", "updated", "logged", "with timeouts"} {
		if seen[kind]*2000 < packets {
			t.Errorf("only %d of %d packets were %s", seen[kind], packets, kind)
		}
	}
	t.Logf("%d packets: %v", packets, seen)
}

// FuzzDecideAgreesWithTheCompiledRules lets the fuzzer choose policy and
// packets.
func FuzzDecideAgreesWithTheCompiledRules(f *testing.F) {
	for seed := range uint64(8) {
		r := corpus.Seeded(seed)
		var data []byte
		for range 64 {
			data = binary.BigEndian.AppendUint16(data, uint16(r.Uint32()))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := agree(corpus.FromBytes(data), 20, map[string]int{}); err != nil {
			t.Fatal(err)
		}
	})
}

func envNumber(t *testing.T, name string, otherwise int) int {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// agree makes a policy and packets of a random source, and returns the first
// disagreement. It counts in seen what kinds of packets there were.
func agree(r *rand.Rand, packets int, seen map[string]int) error {
	p := corpus.Policy(r, corpus.Options{ACLs: r.IntN(2) == 0, AlwaysTrack: r.IntN(2) == 0, Logs: r.IntN(3) == 0, Timeouts: r.IntN(3) == 0})
	env := compile.Environment{}
	if r.IntN(5) == 0 {
		env.Conntrack = map[flow.Family]string{flow.Families[r.IntN(2)]: "a table of the test does NAT"}
	}
	table := compile.Compile(p, env)
	vm, err := nftvm.New(table)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, describe(p, env))
	}
	judge := policies.NewJudge(p)
	makes := corpus.NewPackets(r, p)
	for range packets {
		packet := makes.Next()
		d := judge.Decide(&packet)
		if err := agreeAbout(vm, table, p.HostTimeouts(), judge, env, &packet, d, seen); err != nil {
			result, _ := vm.Trace(&packet)
			return fmt.Errorf("%w\npacket:  %s\nDecide:  allow %t, %s: %s%s\ntrace:\n  %s\n%s", err, &packet,
				d.Allow, d.Class, d.Reason, ruleOf(d), strings.Join(result.Trace, "\n  "), describe(p, env))
		}
	}
	return nil
}

func agreeAbout(vm *nftvm.VM, table *ruleset.Table, host policies.Timeouts, judge *policies.Judge, env compile.Environment, p *flow.Packet, d policies.Decision, seen map[string]int) error {
	result, err := vm.Run(p)
	if err != nil {
		return err
	}
	seen[d.Class.String()]++
	if i := judge.Interface(p.Interface); i != nil {
		for _, kind := range corpus.Kinds(i, p, d) {
			seen[kind]++
		}
	}
	if result.Accept != d.Allow {
		return fmt.Errorf("the rules say accept %t, the policy %t", result.Accept, d.Allow)
	}
	want := wantsNotrack(judge, env, p)
	if refusedByACL(judge, p, d) && p.Direction == flow.Ingress {
		want = false // it does not come so far
	}
	if result.Notrack != want {
		return fmt.Errorf("the rules say notrack %t, the policy %t", result.Notrack, want)
	}
	if want {
		seen["notrack"]++
	}
	if err := agreeAboutLogs(result, judge, p, d, seen); err != nil {
		return err
	}
	if err := agreeAboutTimeouts(result, table, host, judge, p, d, seen); err != nil {
		return err
	}
	return agreeAboutUpdates(result, p, d, seen)
}

// wantsNotrack says which packets of open flows the kernel may leave alone
// (2.3): those that end on the host itself, or begin there, where nothing else
// needs conntrack.
func wantsNotrack(judge *policies.Judge, env compile.Environment, p *flow.Packet) bool {
	i := judge.Interface(p.Interface)
	return i != nil && !i.NotrackOff && env.Conntrack[p.Family()] == "" && !p.Forwarded && judge.Open(p)
}

// refusedByACL reports whether it was the interface's ACL that dropped the
// packet.
func refusedByACL(judge *policies.Judge, p *flow.Packet, d policies.Decision) bool {
	return !d.Allow && judge.Interface(p.Interface).ACL != "" && (d.ACLEntry == nil || !d.ACLEntry.Allow)
}

// agreeAboutLogs: what an interface with a log_denied block refuses is logged
// once, and says who refused it; nothing else is logged.
func agreeAboutLogs(result nftvm.Result, judge *policies.Judge, p *flow.Packet, d policies.Decision, seen map[string]int) error {
	var want []string
	if i := judge.Interface(p.Interface); !d.Allow && i.Log != nil {
		seen["logged"]++
		by := "groups"
		if refusedByACL(judge, p, d) {
			by = "acl"
		}
		want = []string{compile.LogPrefix(i.Name, p.Direction, by)}
	}
	if !slices.Equal(result.Logged, want) {
		return fmt.Errorf("the rules log %q, the policy means %q", result.Logged, want)
	}
	return nil
}

// agreeAboutTimeouts: a packet that opens a flow in conntrack gives it the timeouts
// of its interface or its always_track block, unless all of them are the host's.
// Where a routed one leaves, it would depend on where it came in, which no packet
// here says.
func agreeAboutTimeouts(result nftvm.Result, table *ruleset.Table, host policies.Timeouts, judge *policies.Judge, p *flow.Packet, d policies.Decision, seen map[string]int) error {
	i := judge.Interface(p.Interface)
	if !d.Allow || d.Class == policies.Exempt || i == nil || !p.Protocol.HasPorts() || p.State != flow.New || result.Notrack ||
		p.Forwarded && p.Direction == flow.Egress {
		return nil
	}
	want, is := i.EffectiveTimeouts(), func(a, b policies.Timeouts) bool {
		if p.Protocol == flow.TCP {
			return a.TCPEstablished == b.TCPEstablished
		}
		return a.UDP == b.UDP && a.UDPStream == b.UDPStream
	}
	isHosts := is(want, host)
	if t := judge.AlwaysTrack(p); t != nil {
		isHosts = isHosts && is(t.EffectiveTimeouts(i), want)
		want = t.EffectiveTimeouts(i)
	}
	if isHosts {
		if result.Timeout != "" {
			return fmt.Errorf("the rules give the flow %s, the policy the host's", result.Timeout)
		}
		return nil
	}
	seen["with timeouts"]++
	n := slices.IndexFunc(table.Timeouts, func(o *ruleset.Timeout) bool { return o.Name == result.Timeout })
	if n < 0 {
		return fmt.Errorf("the rules give the flow no timeouts (%q), the policy %v", result.Timeout, want)
	}
	got := want
	for _, s := range table.Timeouts[n].States {
		switch s.State {
		case ruleset.TCPEstablished:
			got.TCPEstablished = s.Timeout
		case ruleset.UDPUnreplied:
			got.UDP = s.Timeout
		case ruleset.UDPReplied:
			got.UDPStream = s.Timeout
		}
	}
	// Where nft could not read its own list, a second is missing.
	if got.TCPEstablished == 431999*time.Second {
		got.TCPEstablished += time.Second
	}
	if got.UDP == 30*time.Second && got.UDPStream == 119*time.Second {
		got.UDPStream += time.Second
	}
	if !is(got, want) {
		return fmt.Errorf("the rules give the flow %s, the policy %v", result.Timeout, want)
	}
	return nil
}

// agreeAboutUpdates: a packet of another protocol that passes opens its flow
// for 600 seconds or refreshes it, in one set of its family; no other packet
// touches a set.
func agreeAboutUpdates(result nftvm.Result, p *flow.Packet, d policies.Decision, seen map[string]int) error {
	if !d.Allow || d.Class != policies.Tracked || !p.Protocol.IsOther(p.Family()) {
		if len(result.Updated) > 0 {
			return fmt.Errorf("the rules update %q", result.Updated)
		}
		return nil
	}
	seen["updated"]++
	want := nftvm.Updated{
		Set:     map[flow.Family]string{flow.IPv4: "flows.ipv4", flow.IPv6: "flows.ipv6"}[p.Family()],
		Key:     ruleset.Concat(ruleset.IfNameKey(p.Interface), ruleset.ProtoKey(p.Protocol), ruleset.AddrKey(p.Peer())),
		Timeout: 600 * time.Second,
	}
	if !slices.Equal(result.Updated, []nftvm.Updated{want}) {
		return fmt.Errorf("the rules update %q, the policy means %q", result.Updated, want)
	}
	return nil
}

func ruleOf(d policies.Decision) string {
	s := ""
	if d.Rule != nil {
		s += "\n         by " + d.Rule.Address()
	}
	if d.Returning != nil {
		s += " and " + d.Returning.Address()
	}
	return s
}

func describe(p *policies.Policy, env compile.Environment) string {
	return fmt.Sprintf("environment: %v\npolicy:\n%s", env.Conntrack, corpus.HCL(p))
}
