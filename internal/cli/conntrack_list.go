package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// entryView is the JSON form of an entry; list prints one a line.
type entryView struct {
	FormatVersion int    `json:"format_version"`
	Class         string `json:"class"`
	// Revoked is set if some leg is allowed by no rule any more.
	Revoked  bool      `json:"revoked"`
	Protocol string    `json:"protocol"`
	Original tupleView `json:"original"`
	Reply    tupleView `json:"reply"`
	TCPState string    `json:"tcp_state,omitempty"`
	Status   []string  `json:"status"`
	// Remaining is null for a flow that does not end by itself.
	Remaining *int `json:"remaining_seconds"`
	// Remembered says that the rules remember the flow, of a protocol that sgc
	// tracks by itself, and that Remaining is their time and not the entry's.
	Remembered bool      `json:"remembered,omitempty"`
	ID         uint32    `json:"id"`
	Zone       uint16    `json:"zone,omitempty"`
	Mark       uint32    `json:"mark,omitempty"`
	Legs       []legView `json:"legs"`
}

type tupleView struct {
	Source     netip.Addr `json:"source"`
	SourcePort *uint16    `json:"source_port,omitempty"`
	Dest       netip.Addr `json:"destination"`
	DestPort   *uint16    `json:"destination_port,omitempty"`
	ICMPType   *uint8     `json:"icmp_type,omitempty"`
	ICMPCode   *uint8     `json:"icmp_code,omitempty"`
	ICMPID     *uint16    `json:"icmp_id,omitempty"`
}

// legView is a crossing of an interface of the policy, with the addresses that
// are on the wire there.
type legView struct {
	Interface string `json:"interface"`
	Direction string `json:"direction"`
	tupleView
	Class   string `json:"class"`
	Revoked bool   `json:"revoked"`
	// Rule is the address of the rule that allows the flow now, null where none
	// does or none is asked.
	Rule *string `json:"rule"`
	// Denied says that the network ACL refuses what opened the flow.
	Denied bool `json:"denied_by_acl,omitempty"`
}

func newEntryView(e *conntrack.Entry, j *conntrack.Judged, known rememberedFlows) entryView {
	v := entryView{
		FormatVersion: formatVersion, Class: j.Class().String(), Revoked: j.Revoked(),
		Protocol: e.Original.Protocol.Name(e.Original.Family()),
		Original: newTupleView(&e.Original), Reply: newTupleView(&e.Reply),
		Status: e.Status.Names(), ID: e.ID, Zone: e.Zone, Mark: e.Mark,
	}
	if e.TCPState != conntrack.TCPNone {
		v.TCPState = e.TCPState.String()
	}
	if left, ok := known.left(j); ok {
		v.Remaining, v.Remembered = secondsOf(left), true
	} else if endsAlone(e) {
		v.Remaining = secondsOf(e.Remaining)
	}
	for i := range j.Legs {
		v.Legs = append(v.Legs, newLegView(&j.Legs[i]))
	}
	return v
}

// endsAlone reports whether the entry has a timeout.
func endsAlone(e *conntrack.Entry) bool {
	return !e.Status.Has(conntrack.Offload) && !e.Status.Has(conntrack.HardwareOffload)
}

func newTupleView(t *conntrack.Tuple) tupleView {
	v := tupleView{Source: t.Source, Dest: t.Dest}
	switch {
	case t.Protocol.IsICMP(t.Family()):
		v.ICMPType, v.ICMPCode, v.ICMPID = &t.ICMPType, &t.ICMPCode, &t.ICMPID
	case t.Protocol.HasPorts(), t.SourcePort != 0, t.DestPort != 0:
		v.SourcePort, v.DestPort = &t.SourcePort, &t.DestPort
	}
	return v
}

func newLegView(l *conntrack.Leg) legView {
	p := &l.Packet
	v := legView{
		Interface: p.Interface, Direction: p.Direction.String(),
		tupleView: tupleView{Source: p.Source, Dest: p.Dest},
		Class:     l.Class().String(), Revoked: l.Revoked(), Denied: l.Denied,
	}
	switch {
	case p.Protocol.HasPorts():
		v.SourcePort, v.DestPort = &p.SourcePort, &p.DestPort
	case p.Protocol.IsICMP(p.Family()):
		v.ICMPType, v.ICMPCode = &p.ICMPType, &p.ICMPCode
	}
	if l.Rule != nil {
		address := l.Rule.Address()
		v.Rule = &address
	}
	return v
}

func (s *session) conntrackList(ctx context.Context, path string, chosen choice, count bool) error {
	p, err := s.neededPolicy(ctx, path, conntrackList)
	if err != nil {
		return err
	}
	if err := chosen.resolve(p); err != nil {
		return err
	}
	return s.withTracking(ctx, p, func(t *tracking) error {
		if count {
			return s.countEntries(ctx, t, &chosen.filter)
		}
		return s.listEntries(ctx, t, &chosen.filter)
	})
}

func (s *session) countEntries(ctx context.Context, t *tracking, f *conntrack.Filter) error {
	known, err := s.rememberedFlows(ctx, f)
	if err != nil {
		return err
	}
	n, shown := 0, map[policies.OtherFlow]bool{}
	err = t.table.Select(ctx, t.judge, f, func(_ *conntrack.Entry, j *conntrack.Judged) error {
		n++
		known.shown(j, shown)
		return nil
	})
	if err := s.explainTorn(err); err != nil {
		return err
	}
	without := len(known.without(shown, t.judge, f))
	if s.JSON {
		return s.writeJSON(struct {
			FormatVersion int `json:"format_version"`
			Entries       int `json:"entries"`
			// Remembered are those without an entry.
			Remembered int `json:"remembered"`
		}{formatVersion, n, without})
	}
	_, err = fmt.Fprintln(s.Out, n+without)
	return err
}

// listEntries prints entries as they come, and then the flows that the rules
// remember and that have none.
func (s *session) listEntries(ctx context.Context, t *tracking, f *conntrack.Filter) error {
	known, err := s.rememberedFlows(ctx, f)
	if err != nil {
		return err
	}
	n, shown := 0, map[policies.OtherFlow]bool{}
	out := bufio.NewWriterSize(s.Out, 1<<16)
	lines := entryLines{paint: s.outPaint(), known: known}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	err = t.table.Select(ctx, t.judge, f, func(e *conntrack.Entry, j *conntrack.Judged) error {
		n++
		known.shown(j, shown)
		if s.JSON {
			return encoder.Encode(newEntryView(e, j, known))
		}
		_, err := out.Write(lines.of(e, j))
		return err
	})
	if err == nil || errors.Is(err, conntrack.ErrTorn) {
		var judged conntrack.Judged
		for _, flow := range known.without(shown, t.judge, f) {
			n++
			var failed error
			if flow.chosen(t.judge, f, &judged); s.JSON {
				failed = encoder.Encode(newRememberedView(&flow, &judged))
			} else {
				_, failed = out.Write(lines.remembered(&flow, &judged))
			}
			if failed != nil {
				return failed
			}
		}
	}
	if flushed := out.Flush(); flushed != nil {
		return flushed
	}
	if err == nil && n == 0 {
		s.inform(noEntry)
	}
	return s.explainTorn(err)
}

// noEntry is what list says where it prints nothing.
const noEntry = "No conntrack entry is like that. Open flows that the kernel does not track have none: sgc conntrack explain shows those of the host's sockets."

// entryLines writes entries as text, a line for each leg. The columns are as
// wide as most need, since nobody knows what is still to come.
type entryLines struct {
	paint paint
	// known are the flows of other protocols that the rules remember.
	known rememberedFlows
	buf   []byte
}

// The widths of the columns.
const (
	widthInterface = 8
	widthDirection = 7
	widthFlow      = 46
	widthClass     = 7
	widthRemaining = 6
)

func (w *entryLines) of(e *conntrack.Entry, j *conntrack.Judged) []byte {
	w.buf = w.buf[:0]
	left, known := w.known.left(j)
	for i := range j.Legs {
		remaining, note := "-", stateText(e)
		if known {
			remaining = shortTime(left)
		} else if endsAlone(e) {
			remaining = shortTime(e.Remaining)
		}
		if i > 0 {
			note = "the same flow"
		}
		w.leg(&j.Legs[i], j.Legs[i].Class().String(), remaining, note)
	}
	return w.buf
}

// leg appends the line of a leg, with a note unless it is "".
func (w *entryLines) leg(l *conntrack.Leg, class, remaining, note string) {
	w.cell(clean(l.Packet.Interface), widthInterface)
	w.cell(l.Packet.Direction.String(), widthDirection)
	w.cell(legText(&l.Packet), widthFlow)
	w.cell(class, widthClass)
	w.cell(remaining, widthRemaining)
	w.buf = append(w.buf, w.ruleText(l)...)
	if note != "" {
		w.buf = append(w.buf, " ("+note+")"...)
	}
	w.buf = append(w.buf, '\n')
}

// cell appends a column, and a space at least.
func (w *entryLines) cell(text string, width int) {
	w.buf = append(w.buf, text...)
	for n := utf8.RuneCountInString(text); n < width; n++ {
		w.buf = append(w.buf, ' ')
	}
	w.buf = append(w.buf, ' ')
}

// ruleText names the rule of a leg, or says why there is none.
func (w *entryLines) ruleText(l *conntrack.Leg) string {
	text := ""
	switch {
	case l.Rule != nil:
		text = clean(l.Rule.Address())
	case l.Revoked():
		text = w.paint.yellow("no rule allows it any more")
	default:
		text = "never filtered"
	}
	if l.Denied {
		text += w.paint.red(", refused by the network ACL")
	}
	return text
}

// legText is a packet of the list: protocol, from where, to where.
func legText(p *flow.Packet) string {
	name := p.Protocol.Name(p.Family())
	switch {
	case p.Protocol.HasPorts():
		return name + " " + netip.AddrPortFrom(p.Source, p.SourcePort).String() + " → " + netip.AddrPortFrom(p.Dest, p.DestPort).String()
	case p.Protocol.IsICMP(p.Family()):
		return fmt.Sprintf("%s %s → %s type %d", name, p.Source, p.Dest, p.ICMPType)
	}
	return name + " " + p.Source.String() + " → " + p.Dest.String()
}

// stateText is what the kernel says of the flow, "" for nothing special.
func stateText(e *conntrack.Entry) string {
	var words []string
	if e.TCPState != conntrack.TCPNone {
		words = append(words, e.TCPState.String())
	}
	if !e.Status.Has(conntrack.SeenReply) {
		words = append(words, "unreplied")
	}
	if e.Zone != 0 {
		words = append(words, fmt.Sprintf("zone %d", e.Zone))
	}
	if !endsAlone(e) {
		words = append(words, "offloaded")
	}
	return strings.Join(words, ", ")
}

// timeUnits are those in which times are written, the largest first.
var timeUnits = []struct {
	seconds int
	name    string
}{{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}}

// shortTime writes a time in the largest unit that it fills, and the next
// smaller one: 4d23h, 59m58s, 30s.
func shortTime(d time.Duration) string {
	seconds := int(d / time.Second)
	for i, u := range timeUnits {
		if seconds < u.seconds && u.seconds > 1 {
			continue
		}
		text := strconv.Itoa(seconds/u.seconds) + u.name
		if rest := seconds % u.seconds; i+1 < len(timeUnits) && rest >= timeUnits[i+1].seconds {
			text += strconv.Itoa(rest/timeUnits[i+1].seconds) + timeUnits[i+1].name
		}
		return text
	}
	return ""
}
