package apply

import (
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// Counter is what the rules in the kernel have counted for policy addresses.
type Counter struct {
	// From holds the addresses that the kernel counts together: most often
	// one, sorted.
	From []string
	// Packets and Bytes are sums over all rules that count for From. They start
	// anew where a rule is made anew, and wrap.
	Packets, Bytes uint64
	// Rules is how many rules of the wanted table count for From, and Missing
	// how many of these the kernel does not hold as they are wanted: somebody
	// changed or removed them, and what they counted is not known.
	Rules, Missing int
}

// Counters sums up what the kernel has counted, for all rules of the wanted
// table that name policy addresses. The counters are sorted by address; each
// list of addresses stands once. A rule in the kernel counts if it means what
// is wanted and has its place, as Diff sees it.
func Counters(have *Snapshot, want *ruleset.Table) ([]Counter, error) {
	counters := map[string]*Counter{}
	live := map[string]*Chain{}
	if have.Table != nil {
		for _, c := range have.Table.Chains {
			live[c.Name] = c
		}
	}
	for _, c := range want.Chains {
		if !slices.ContainsFunc(c.Rules, func(r ruleset.Rule) bool { return len(r.From) > 0 }) {
			continue
		}
		chain := live[c.Name]
		if chain == nil {
			chain = &Chain{}
		}
		m, err := matchRules(chain, c)
		if err != nil {
			return nil, err
		}
		// of holds, for every wanted rule, the one in the kernel.
		of := make([]*Rule, len(c.Rules))
		for i, w := range m.matched {
			if w >= 0 {
				of[w] = &chain.Rules[i]
			}
		}
		for i, r := range c.Rules {
			if len(r.From) == 0 {
				continue
			}
			key := strings.Join(r.From, "\x00")
			sum := counters[key]
			if sum == nil {
				sum = &Counter{From: r.From}
				counters[key] = sum
			}
			sum.Rules++
			if of[i] == nil {
				sum.Missing++
				continue
			}
			packets, bytes, err := of[i].counted()
			if err != nil {
				return nil, err
			}
			sum.Packets += packets
			sum.Bytes += bytes
		}
	}
	out := make([]Counter, 0, len(counters))
	for _, c := range counters {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Counter) int { return slices.Compare(a.From, b.From) })
	return out, nil
}

// counted returns the values of the rule's counter; zeros if it has none.
func (r *Rule) counted() (packets, bytes uint64, err error) {
	list := nlmsg.Walk(r.expressions)
	for list.Next() {
		name, data, err := splitExpression(list.Data)
		if err != nil {
			return 0, 0, err
		}
		if string(name) != "counter" {
			continue
		}
		a := nlmsg.Walk(data)
		for a.Next() {
			if len(a.Data) != 8 {
				continue
			}
			switch a.Type {
			case unix.NFTA_COUNTER_BYTES:
				bytes = binary.BigEndian.Uint64(a.Data)
			case unix.NFTA_COUNTER_PACKETS:
				packets = binary.BigEndian.Uint64(a.Data)
			}
		}
		return packets, bytes, a.Err
	}
	return 0, 0, list.Err
}
