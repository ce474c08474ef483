package nftvm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

func TestNewRefusesTables(t *testing.T) {
	element := func(first, last string, v *ruleset.Verdict) []ruleset.Element {
		return []ruleset.Element{{First: first, Last: last, Verdict: v}}
	}
	port := []ruleset.Type{ruleset.InetService}
	long := func(n int) []*ruleset.Chain {
		var chains []*ruleset.Chain
		for i := range n {
			c := &ruleset.Chain{Name: fmt.Sprint("c", i)}
			if i+1 < n {
				c.Rules = rules(when(to(ruleset.Goto, fmt.Sprint("c", i+1))))
			}
			chains = append(chains, c)
		}
		return chains
	}
	if _, err := New(prerouting(nil, rules(when(to(ruleset.Jump, "c0"))), long(maxDepth)...)); err != nil {
		t.Errorf("%d chains in a row: %v", maxDepth, err)
	}
	jump := func(target string) []ruleset.Rule { return rules(when(to(ruleset.Jump, target))) }
	set := func(s ruleset.Set) *ruleset.Table {
		s.Name = "s"
		return prerouting([]*ruleset.Set{&s}, nil)
	}
	for _, row := range []struct {
		name  string
		table *ruleset.Table
		want  string
	}{
		{"too many chains in a row", prerouting(nil, jump("c0"), long(maxDepth+1)...), "chain prerouting: 16 chains follow each other"},
		{"a jump to nowhere", prerouting(nil, jump("nowhere")), `chain prerouting, rule 1 (): expression 1 (*expr.Verdict): there is no chain "nowhere"`},
		{"a jump to a base chain", prerouting(nil, jump("prerouting")), "prerouting is a base chain"},
		{"a loop", prerouting(nil, nil, &ruleset.Chain{Name: "a", Rules: jump("b")}, &ruleset.Chain{Name: "b", Rules: jump("a")}), "leads back to itself"},
		{"a loop by a map", prerouting([]*ruleset.Set{{Name: "m", Map: true, Key: port, Elements: element("\x00\x16", "", &ruleset.Verdict{Kind: ruleset.Goto, Chain: "a"})}}, nil,
			&ruleset.Chain{Name: "a", Rules: rules(when(ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.DestPort}, Map: "m"}))}), "chain a: it leads back to itself"},
		{"a map that leads nowhere", set(ruleset.Set{Map: true, Key: port, Elements: element("\x00\x16", "", &ruleset.Verdict{Kind: ruleset.Goto, Chain: "a"})}),
			`set s: element "22 : goto a": there is no chain "a"`},
		{"two chains of one name", prerouting(nil, nil, &ruleset.Chain{Name: "prerouting"}), "chain prerouting: it is there twice"},
		{"two sets of one name", prerouting([]*ruleset.Set{{Name: "s", Key: port}, {Name: "s", Key: port}}, nil), "set s: it is there twice"},
		{"an unknown hook", &ruleset.Table{Chains: []*ruleset.Chain{base("input", 1, 0, nil)}}, "chain input: hook 1 is not known"},
		{"a chain beside conntrack", &ruleset.Table{Chains: []*ruleset.Chain{base("pre", ruleset.Prerouting, -200, nil)}}, "priority -200 is conntrack's own"},
		{"a set without a key", set(ruleset.Set{}), "it has no key"},
		{"a key of the wrong length", set(ruleset.Set{Key: port, Elements: element("\x00", "", nil)}), "its key has 1 and 1 bytes, the set's 2"},
		{"an element twice", set(ruleset.Set{Key: port, Elements: append(element("\x00\x16", "", nil), element("\x00\x16", "", nil)...)}), "it is there twice"},
		{"a range in a plain set", set(ruleset.Set{Key: port, Elements: element("\x00\x16", "\x00\x17", nil)}), "a range, in a set without intervals"},
		{"a range that ends before it begins", set(ruleset.Set{Key: port, Interval: true, Elements: element("\x00\x17", "\x00\x16", nil)}), "it ends before it begins"},
		{"ranges that overlap", set(ruleset.Set{Key: port, Interval: true, Elements: append(element("\x00\x16", "\x00\x18", nil), element("\x00\x18", "\x00\x19", nil)...)}), "it overlaps the one before it"},
		{"intervals of concatenated keys", set(ruleset.Set{Key: append(port, port...), Interval: true}), "intervals of concatenated keys are not known"},
		{"a timed map", set(ruleset.Set{Key: port, Timed: true, Map: true}), "a timed set is not filled by rules, has no verdicts, and begins empty"},
		{"a timed set with elements", set(ruleset.Set{Key: port, Timed: true, Elements: element("\x00\x16", "", nil)}), "a timed set is not filled by rules"},
		{"an unknown object", prerouting(nil, rules(when(ruleset.SetTimeout{Object: "tcp4.60s"}))), `there is no ct timeout "tcp4.60s"`},
		{"timeouts of an unknown protocol", &ruleset.Table{Timeouts: []*ruleset.Timeout{{Name: "t", Family: flow.IPv4, Protocol: 132}}}, "ct timeout t: timeouts of"},
		{"an object twice", &ruleset.Table{Timeouts: []*ruleset.Timeout{{Name: "t", Protocol: flow.TCP}, {Name: "t", Protocol: flow.TCP}}}, "ct timeout t: it is there twice"},
		{"a verdict in a set", set(ruleset.Set{Key: port, Elements: element("\x00\x16", "", &accept)}), "elements of maps, and only they, have a verdict"},
		{"a map element without one", set(ruleset.Set{Key: port, Map: true, Elements: element("\x00\x16", "", nil)}), "elements of maps, and only they, have a verdict"},
		{"a dynamic set without an end", set(ruleset.Set{Key: port, Dynamic: true, Size: 1}), "a dynamic set has a timeout and a size"},
		{"a dynamic set of unknown keys", set(ruleset.Set{Key: port, Dynamic: true, Size: 1, Timeout: time.Second}), "dynamic sets with a key of inet_service are not known"},
		{"an unknown set", prerouting(nil, rules(when(ruleset.Lookup{Fields: []ruleset.Field{ruleset.DestPort}, Set: "s"}, drop))), `there is no set "s"`},
		{"a set as a map", prerouting([]*ruleset.Set{{Name: "s", Key: port}}, rules(when(ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.DestPort}, Map: "s"}))), "set s is no map"},
		{"a map as a set", prerouting([]*ruleset.Set{{Name: "s", Map: true, Key: port}}, rules(when(ruleset.Lookup{Fields: []ruleset.Field{ruleset.DestPort}, Set: "s"}))), "s is a map"},
		{"a key shorter than the set's", prerouting([]*ruleset.Set{{Name: "s", Key: []ruleset.Type{ruleset.IPv6Addr}}}, rules(when(ruleset.Lookup{Fields: []ruleset.Field{ruleset.DestPort}, Set: "s"}))), "nothing has set the 16 bytes of register 1"},
		{"an update of a constant set", prerouting([]*ruleset.Set{{Name: "s", Key: port}}, rules(when(ruleset.Update{Fields: []ruleset.Field{ruleset.DestPort}, Set: "s"}))), "set s is not dynamic"},
		{"a rule that cannot be encoded", prerouting(nil, rules(when(ruleset.Match{Field: ruleset.DestPort, Value: "x"}))), "chain prerouting, rule 1"},
		{"a statement behind a verdict", prerouting(nil, rules(when(accept, ruleset.Notrack{}))), "expression 2 (*expr.Notrack): it stands behind a verdict"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := New(row.table)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

func TestNewRefusesTimedElements(t *testing.T) {
	port := []ruleset.Type{ruleset.InetService}
	table := prerouting([]*ruleset.Set{
		{Name: "constant", Key: port}, {Name: "timed", Key: port, Timed: true},
		{Name: "boxes", Key: append(port, port...), Timed: true, Interval: true},
	}, nil)
	for _, row := range []struct {
		name        string
		set         string
		first, last string
		want        string
	}{
		{"an unknown set", "s", "\x00\x16", "\x00\x16", "set s: there is no such set"},
		{"a constant set", "constant", "\x00\x16", "\x00\x16", "set constant: it is not timed"},
		{"a key of the wrong length", "timed", "\x00", "\x00", "its key has 1 and 1 bytes"},
		{"a range in a set of none", "timed", "\x00\x16", "\x00\x17", "a range, in a set without intervals"},
		{"a field that ends before it begins", "boxes", "\x00\x16\x00\x00\x00\x17\x00\x00", "\x00\x17\x00\x00\x00\x16\x00\x00", "its inet_service ends before it begins"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := New(table, Timed{row.set, ruleset.TimedElement{First: row.first, Last: row.last}})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

func TestNewRefusesExpressions(t *testing.T) {
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Len: 2}
	for _, row := range []struct {
		name  string
		exprs []expr.Any
		want  string
	}{
		{"an unknown one", []expr.Any{&expr.Socket{Register: 1}}, "expression 1 (*expr.Socket): it is not known"},
		{"NAT", []expr.Any{load, &expr.NAT{}}, "expression 2 (*expr.NAT): it is not known"},
		{"unknown meta data", []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}}, "key 3 is not known"},
		{"setting meta data", []expr.Any{load, &expr.Meta{Key: expr.MetaKeyL4PROTO, SourceRegister: true, Register: 1}}, "setting meta data is not known"},
		{"writing to the packet", []expr.Any{&expr.Payload{OperationType: expr.PayloadWrite}}, "writing to a packet is not known"},
		{"the link layer", []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Len: 2}}, "base 0 is not known"},
		{"unknown conntrack data", []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: 1}}, "key 3 is not known"},
		{"the source of the answers", []expr.Any{&expr.Ct{Key: expr.CtKeySRCIP, Direction: 1, Register: 1}}, "the answering direction is not known"},
		{"another kind of object", []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_LIMIT, Name: "t"}}, "objects of type 4 are not known"},
		{"setting conntrack data", []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, SourceRegister: true, Register: 1}}, "setting conntrack data is not known"},
		{"another route look-up", []expr.Any{&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}}, "only the type of the destination address is known"},
		{"a register that nothing has set", []expr.Any{load, &expr.Cmp{Register: unix.NFT_REG_2, Data: []byte{1}}}, "expression 2 (*expr.Cmp): nothing has set the 1 bytes of register 2"},
		{"a register that is set in part", []expr.Any{load, &expr.Cmp{Register: 1, Data: []byte("12345")}}, "nothing has set the 5 bytes of register 1"},
		{"no such register", []expr.Any{&expr.Payload{DestRegister: 5, Base: expr.PayloadBaseTransportHeader, Len: 2}}, "there is no register 5 for data"},
		{"the register of verdicts", []expr.Any{&expr.Cmp{Register: 0, Data: []byte{1}}}, "there is no register 0 for data"},
		{"a value that does not fit", []expr.Any{&expr.Payload{DestRegister: unix.NFT_REG_4, Base: expr.PayloadBaseTransportHeader, Len: 17}}, "register 4 does not hold 17 bytes"},
		{"nothing to compare with", []expr.Any{load, &expr.Cmp{Register: 1}}, "register 1 does not hold 0 bytes"},
		{"an unknown operator", []expr.Any{load, &expr.Cmp{Op: 9, Register: 1, Data: []byte{1}}}, "operator 9 is not known"},
		{"an unknown range operator", []expr.Any{load, &expr.Range{Op: expr.CmpOpLt, Register: 1, FromData: []byte{1}, ToData: []byte{1}}}, "operator 2 is not known"},
		{"a range of two lengths", []expr.Any{load, &expr.Range{Register: 1, FromData: []byte{1}, ToData: []byte{1, 2}}}, "its ends have 1 and 2 bytes"},
		{"a mask of another length", []expr.Any{load, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{1}, Xor: []byte{1, 2}}}, "mask and xor have 1 and 2 bytes, not 2"},
		{"a verdict to user space", []expr.Any{&expr.Verdict{Kind: expr.VerdictQueue}}, "is not known"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := checker{}
			_, err := c.instructions(row.exprs)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}
