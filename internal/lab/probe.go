package lab

import (
	"fmt"
	"net/netip"

	"sgc/internal/flow"
)

// Trial is a packet that is sent with everything that follows from it: if it
// passes it goes on to its destination, and conntrack keeps its flow.
type Trial struct {
	// Packet's State does not count: it is what the kernel makes of it.
	Packet flow.Packet
	// Answers is the index of an earlier trial whose packet this one answers,
	// or -1.
	Answers int
}

// Finding is what became of a trial.
type Finding struct {
	Outcome
	// Entry is the conntrack entry that the packet's flow had afterwards, nil
	// for none.
	Entry *Entry
}

// trialBatch bounds how many flows the trials open before their entries are
// deleted, far below what any host's conntrack holds.
const trialBatch = 2000

// Try sends the trials and returns a finding for each. First those go that
// answer nothing, then their answers, then the answers to these. Flows of
// conntrack that are there already are deleted; those that the trials opened
// are gone at the end. What sgc tracks by itself (flow.Protocol.IsOther) stays.
func (j *Judge) Try(trials []Trial) ([]Finding, error) {
	depth, err := depths(trials)
	if err != nil {
		return nil, err
	}
	findings := make([]Finding, len(trials))
	// An answer belongs to the batch of its opener: the root of the chain.
	batch := make([]int, len(trials))
	openers, deepest := 0, 0
	for i, t := range trials {
		if t.Answers < 0 {
			batch[i] = openers / trialBatch
			openers++
		} else {
			batch[i] = batch[t.Answers]
		}
		deepest = max(deepest, depth[i])
	}
	for b := 0; b*trialBatch < openers; b++ {
		if err := j.witness.Flush(); err != nil {
			return nil, err
		}
		for d := 0; d <= deepest; d++ {
			var round []int
			for i := range trials {
				if batch[i] == b && depth[i] == d {
					round = append(round, i)
				}
			}
			if err := j.tryRound(trials, round, findings); err != nil {
				return nil, err
			}
		}
	}
	return findings, j.witness.Flush()
}

// depths returns how many answers lie between each trial and its opener.
func depths(trials []Trial) ([]int, error) {
	depth := make([]int, len(trials))
	for i, t := range trials {
		switch {
		case t.Answers >= i:
			return nil, fmt.Errorf("packet %d answers packet %d, which is not before it", i, t.Answers)
		case t.Answers >= 0:
			depth[i] = depth[t.Answers] + 1
		}
	}
	return depth, nil
}

// tryRound sends the trials with the given indexes, and looks for the entries
// of their flows.
func (j *Judge) tryRound(trials []Trial, round []int, findings []Finding) error {
	if len(round) == 0 {
		return nil
	}
	probes := make([]Probe, len(round))
	for n, i := range round {
		p := trials[i].Packet
		// Ask makes entries for states that a packet claims; here every flow
		// is opened by a packet.
		p.State = flow.New
		probes[n] = Probe{Packet: p, Envelope: Envelope{EchoID: echoID(trials, i)}, GoOn: true}
		if trials[i].Answers >= 0 {
			probes[n].Envelope.Ack = 1 // the SYN had number 0
		}
	}
	outcomes, err := j.Ask(probes)
	if err != nil {
		return err
	}
	entries, err := j.witness.Entries()
	if err != nil {
		return err
	}
	index := indexEntries(entries)
	for n, i := range round {
		findings[i] = Finding{Outcome: outcomes[n], Entry: index[keyOf(&probes[n])]}
	}
	return nil
}

// echoID is the identifier of ICMP queries, which their answers share.
func echoID(trials []Trial, i int) uint16 {
	for trials[i].Answers >= 0 {
		i = trials[i].Answers
	}
	return uint16(i%0xffff) + 1
}

// entryKey is what tells the flow of a packet from others, seen from the
// packet: one of the two tuples of the flow's entry.
type entryKey struct {
	protocol         flow.Protocol
	source, dest     netip.AddrPort
	icmpType, icmpID uint16
}

func keyOf(probe *Probe) entryKey {
	p := &probe.Packet
	k := entryKey{
		protocol: p.Protocol,
		source:   netip.AddrPortFrom(p.Source, p.SourcePort), dest: netip.AddrPortFrom(p.Dest, p.DestPort),
	}
	if p.Protocol.IsICMP(p.Family()) {
		k.icmpType, k.icmpID = uint16(p.ICMPType), probe.Envelope.EchoID
	}
	return k
}

// indexEntries finds entries by each of their tuples. Ports that conntrack
// tells for protocols that have none here, such as the keys of GRE, are left
// out.
func indexEntries(entries []Entry) map[entryKey]*Entry {
	index := make(map[entryKey]*Entry, 2*len(entries))
	for i := range entries {
		for _, t := range [2]Tuple{entries[i].Original, entries[i].Reply} {
			k := entryKey{protocol: t.Protocol, source: t.Source, dest: t.Dest}
			if !t.Protocol.HasPorts() {
				k.source, k.dest = netip.AddrPortFrom(t.Source.Addr(), 0), netip.AddrPortFrom(t.Dest.Addr(), 0)
			}
			if t.Protocol.IsICMP(flow.FamilyOf(t.Source.Addr())) {
				k.icmpType, k.icmpID = uint16(t.ICMPType), t.ICMPID
			}
			index[k] = &entries[i]
		}
	}
	return index
}
