package cli

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"sgc/internal/flow"
	"sgc/internal/nflog"
)

// defaultInterval is the shortest aggregation interval of the cloud's flow
// logs.
const defaultInterval = 60 * time.Second

// flowLogMost is how many flows are kept; when more are refused in an interval,
// which only a flood from forged addresses does, the records come early, and
// a flow may have several.
const flowLogMost = 1 << 16

// flowLog shows records of the cloud's flow logs in their default format,
// version 2: what was refused, summed up by flow over intervals. Times are
// seconds since 1970.
//
// Source: the cloud's documentation of flow log records.
type flowLog struct {
	// blocks are the interface blocks that have a record in every interval:
	// those of the policy, or, without one, those that have refused a packet
	// since the beginning.
	blocks   []string
	interval time.Duration
	// begin is when the present interval began.
	begin time.Time
	// flows of the present interval are in the order of their first packet.
	flows []*flowRecord
	index map[flowKey]*flowRecord
	// active are the blocks that refused a packet in the present interval.
	active  map[string]bool
	skipped bool
}

type flowKey struct {
	name                 string
	protocol             flow.Protocol
	source, dest         netip.Addr
	sourcePort, destPort uint16
}

type flowRecord struct {
	flowKey
	packets, bytes int
	first, last    time.Time
}

func newFlowLog(blocks []string, interval time.Duration, begin time.Time) *flowLog {
	return &flowLog{blocks: blocks, interval: interval, begin: begin, index: make(map[flowKey]*flowRecord), active: make(map[string]bool)}
}

func (l *flowLog) packet(b *bytes.Buffer, p *nflog.Packet, _ uint32) error {
	// For ICMP and where ports are not known, they are 0, as in the cloud.
	key := flowKey{p.Interface, p.Protocol, p.Source, p.Dest, p.SourcePort, p.DestPort}
	r := l.index[key]
	if r == nil {
		if len(l.flows) == flowLogMost {
			l.flush(b)
		}
		r = &flowRecord{flowKey: key, first: p.Time, last: p.Time}
		l.index[key] = r
		l.flows = append(l.flows, r)
	}
	r.packets++
	r.bytes += p.Length
	if p.Time.Before(r.first) {
		r.first = p.Time
	}
	if p.Time.After(r.last) {
		r.last = p.Time
	}
	l.active[p.Block] = true
	l.know(p.Block)
	return nil
}

// know keeps a block that the policy did not tell of.
func (l *flowLog) know(block string) {
	for _, b := range l.blocks {
		if b == block {
			return
		}
	}
	l.blocks = append(l.blocks, block)
}

func (l *flowLog) lost() { l.skipped = true }

func (l *flowLog) due() time.Time { return l.begin.Add(l.interval) }

func (l *flowLog) tick(b *bytes.Buffer, now time.Time, last bool) {
	if !last && now.Before(l.due()) {
		return
	}
	l.flush(b)
	blocks := l.blocks
	if len(blocks) == 0 {
		blocks = []string{"-"}
	}
	for _, name := range blocks {
		switch {
		case l.skipped:
			l.empty(b, name, now, "SKIPDATA")
		case !l.active[name] && now.Unix() > l.begin.Unix():
			l.empty(b, name, now, "NODATA")
		}
	}
	clear(l.active)
	l.skipped = false
	// The next interval begins where this one was to end, unless the machine
	// was held up for longer.
	l.begin = l.due()
	if now.After(l.due()) {
		l.begin = now
	}
}

// flush shows the flows and forgets them.
func (l *flowLog) flush(b *bytes.Buffer) {
	for _, r := range l.flows {
		fmt.Fprintf(b, "2 - %s %s %s %d %d %d %d %d %d %d REJECT OK\n", clean(r.name), r.source, r.dest, r.sourcePort, r.destPort,
			uint8(r.protocol), r.packets, r.bytes, r.first.Unix(), r.last.Unix())
	}
	l.flows = nil
	clear(l.index)
}

// empty shows a record without a flow.
func (l *flowLog) empty(b *bytes.Buffer, name string, now time.Time, status string) {
	fmt.Fprintf(b, "2 - %s - - - - - - - %d %d - %s\n", clean(name), l.begin.Unix(), now.Unix(), status)
}
