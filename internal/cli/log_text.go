package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"sgc/internal/flow"
	"sgc/internal/nflog"
)

// logLines shows a line a packet. A column is as wide as its widest cell until
// now.
type logLines struct {
	logSteady
	name, protocol, source, dest int
}

func newLogLines(blocks []string) *logLines {
	l := &logLines{protocol: len("tcp")}
	for _, b := range blocks {
		l.name = max(l.name, len(b))
	}
	return l
}

func (l *logLines) packet(b *bytes.Buffer, p *nflog.Packet, _ uint32) error {
	cell := func(width *int, text string) string {
		n := utf8.RuneCountInString(text)
		*width = max(*width, n)
		return text + strings.Repeat(" ", *width-n)
	}
	fmt.Fprintf(b, "%s %s %-7s %s %s → %s refused by %s%s\n",
		p.Time.UTC().Format(time.RFC3339), cell(&l.name, clean(p.Interface)), p.Direction, cell(&l.protocol, p.Protocol.Name(p.Family())),
		cell(&l.source, endpoint(p, p.Source, p.SourcePort)), cell(&l.dest, endpoint(p, p.Dest, p.DestPort)), refuserText(p.By), logDetail(p))
	return nil
}

func endpoint(p *nflog.Packet, a netip.Addr, port uint16) string {
	if p.Transport && p.Protocol.HasPorts() {
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

func refuserText(by nflog.Refuser) string {
	if by == nflog.ByACL {
		return "the ACL"
	}
	return "the groups"
}

// logDetail says in brackets what is not in the columns.
func logDetail(p *nflog.Packet) string {
	switch {
	case p.Fragment:
		return " (fragment)"
	case p.Protocol == flow.TCP && p.Transport:
		return " (" + flagLetters(p.TCPFlags) + ")"
	case p.Protocol.IsICMP(p.Family()) && p.Transport:
		text := fmt.Sprintf("type %d code %d", p.ICMPType, p.ICMPCode)
		if q := p.Quoted; q != nil {
			text += fmt.Sprintf(", of %s %s → %s", q.Protocol.Name(q.Family()), quotedEnd(q, q.Source, q.SourcePort), quotedEnd(q, q.Dest, q.DestPort))
		}
		return " (" + text + ")"
	}
	return ""
}

func quotedEnd(q *flow.Packet, a netip.Addr, port uint16) string {
	if q.Protocol.HasPorts() {
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

// flagLetters writes TCP flags as tcpdump does: S for SYN, "." for ACK.
func flagLetters(flags uint8) string {
	var b strings.Builder
	for _, f := range []struct {
		bit    uint8
		letter byte
	}{{flow.SYN, 'S'}, {flow.FIN, 'F'}, {flow.RST, 'R'}, {flow.PSH, 'P'}, {flow.ACK, '.'}, {1 << 5, 'U'}, {1 << 6, 'E'}, {1 << 7, 'W'}} {
		if flags&f.bit != 0 {
			b.WriteByte(f.letter)
		}
	}
	if b.Len() == 0 {
		return "none"
	}
	return b.String()
}

// logObjects shows a JSON object a packet, one a line.
type logObjects struct{ logSteady }

// loggedView is the JSON form of a refused packet.
type loggedView struct {
	FormatVersion int    `json:"format_version"`
	Time          string `json:"time"`
	Interface     string `json:"interface"`
	// Block is the policy's address of the interface block.
	Block     string        `json:"block"`
	Direction string        `json:"direction"`
	RefusedBy nflog.Refuser `json:"refused_by"`
	flowView
	HopLimit uint8  `json:"hop_limit"`
	TCPFlags string `json:"tcp_flags,omitempty"`
	Fragment bool   `json:"fragment,omitempty"`
	// Length is in bytes, from the network header on.
	Length int `json:"length"`
	// In and Out are the interfaces of a packet that crosses both.
	In  string `json:"in,omitempty"`
	Out string `json:"out,omitempty"`
	// Quoted is the packet that an ICMP error is about.
	Quoted *flowView `json:"quoted,omitempty"`
	Group  uint16    `json:"group"`
	// Missed is how many packets of the group were refused before this one
	// and are not in the output, because they came too fast.
	Missed uint32 `json:"missed,omitempty"`
}

// flowView holds what stands in the headers; ports, type and code are left out
// where they are not known.
type flowView struct {
	Protocol        string     `json:"protocol"`
	Source          netip.Addr `json:"source"`
	SourcePort      *uint16    `json:"source_port,omitempty"`
	Destination     netip.Addr `json:"destination"`
	DestinationPort *uint16    `json:"destination_port,omitempty"`
	ICMPType        *uint8     `json:"icmp_type,omitempty"`
	ICMPCode        *uint8     `json:"icmp_code,omitempty"`
}

func newFlowView(p *flow.Packet, transport bool) flowView {
	v := flowView{Protocol: p.Protocol.Name(p.Family()), Source: p.Source, Destination: p.Dest}
	switch {
	case !transport:
	case p.Protocol.HasPorts():
		v.SourcePort, v.DestinationPort = &p.SourcePort, &p.DestPort
	case p.Protocol.IsICMP(p.Family()):
		v.ICMPType, v.ICMPCode = &p.ICMPType, &p.ICMPCode
	}
	return v
}

// logTime is the form of times in JSON: UTC, in microseconds.
const logTime = "2006-01-02T15:04:05.000000Z07:00"

func (logObjects) packet(b *bytes.Buffer, p *nflog.Packet, missed uint32) error {
	v := loggedView{
		FormatVersion: formatVersion,
		Time:          p.Time.UTC().Format(logTime),
		Interface:     p.Interface, Block: "interface." + p.Block,
		Direction: p.Direction.String(), RefusedBy: p.By,
		flowView: newFlowView(&p.Packet, p.Transport),
		HopLimit: p.HopLimit, Fragment: p.Fragment, Length: p.Length,
		In: p.In, Out: p.Out, Group: p.Group, Missed: missed,
	}
	if p.Protocol == flow.TCP && p.Transport {
		v.TCPFlags = flagLetters(p.TCPFlags)
	}
	if p.Quoted != nil {
		quoted := newFlowView(p.Quoted, true)
		v.Quoted = &quoted
	}
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
