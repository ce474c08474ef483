package cli

import (
	"strings"

	"sgc/internal/flow"
)

// labView is the JSON form of lab run.
type labView struct {
	FormatVersion int                `json:"format_version"`
	Path          string             `json:"path"`
	Loaded        labLoadedView      `json:"loaded"`
	Interfaces    []labInterfaceView `json:"interfaces"`
	Packets       []labPacketView    `json:"packets"`
	Summary       labSummaryView     `json:"summary"`
	// Drift is how the kernel's table differs from the loaded one, where
	// packets did not do what the policy says.
	Drift []drifted `json:"drift,omitempty"`
}

type labLoadedView struct {
	tableView
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"`
	// Table is the table as an nft script, with --table.
	Table string `json:"table,omitempty"`
}

type labInterfaceView struct {
	Name string `json:"name"`
	// Block is the name in the policy, which may be a wildcard.
	Block     string   `json:"block"`
	Addresses []string `json:"addresses"`
}

type labPacketView struct {
	Interface       string `json:"interface"`
	Direction       string `json:"direction"`
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	Destination     string `json:"destination"`
	SourcePort      uint16 `json:"source_port,omitempty"`
	DestinationPort uint16 `json:"destination_port,omitempty"`
	ICMPType        *uint8 `json:"icmp_type,omitempty"`
	ICMPCode        *uint8 `json:"icmp_code,omitempty"`
	// Answers is the index of the packet that this one answers.
	Answers *int `json:"answers,omitempty"`
	// Shows says what the packet is an example of.
	Shows  string        `json:"shows,omitempty"`
	Policy labPolicyView `json:"policy"`
	// Kernel is null where the packet never came to the host.
	Kernel *labKernelView `json:"kernel"`
	Agrees bool           `json:"agrees"`
}

type labPolicyView struct {
	// Verdict is allow or drop.
	Verdict string `json:"verdict"`
	Class   string `json:"class"`
	// Rule is the address of the rule that lets the packet through, ACLEntry
	// that of the entry which did, or denied it.
	Rule     string `json:"rule,omitempty"`
	ACLEntry string `json:"acl_entry,omitempty"`
	Reason   string `json:"reason"`
}

type labKernelView struct {
	// Verdict is passed or dropped.
	Verdict string `json:"verdict"`
	// Entry says that conntrack had an entry of the flow afterwards.
	Entry bool `json:"conntrack_entry"`
}

type labSummaryView struct {
	labCounts
	// MorePackets and MoreInterfaces come with --all.
	MorePackets    int `json:"more_packets"`
	MoreInterfaces int `json:"more_interfaces"`
}

func (r *labReport) view() (*labView, error) {
	v := &labView{
		FormatVersion: formatVersion, Path: r.path,
		Loaded:     labLoadedView{tableView: r.loaded, Messages: r.messages, Bytes: r.bytes},
		Interfaces: []labInterfaceView{}, Packets: []labPacketView{}, Drift: r.drift,
		Summary: labSummaryView{r.count(), r.more, r.unseen},
	}
	if r.withTable {
		var text strings.Builder
		if err := r.table.WriteText(&text); err != nil {
			return nil, err
		}
		v.Loaded.Table = text.String()
	}
	for _, i := range r.interfaces {
		v.Interfaces = append(v.Interfaces, labInterfaceView{i.name, i.block.Name, []string{i.host[flow.IPv4].String(), i.host[flow.IPv6].String()}})
	}
	places := map[*example]int{}
	for n := range r.results {
		places[r.results[n].example] = n
	}
	for n := range r.results {
		v.Packets = append(v.Packets, r.results[n].view(places))
	}
	return v, nil
}

func (x *labResult) view(places map[*example]int) labPacketView {
	p, d := &x.packet, x.meaning
	v := labPacketView{
		Interface: p.Interface, Direction: p.Direction.String(), Protocol: p.Protocol.Name(p.Family()),
		Source: p.Source.String(), Destination: p.Dest.String(),
		SourcePort: p.SourcePort, DestinationPort: p.DestPort,
		Shows:  x.shows,
		Policy: labPolicyView{Verdict: "drop", Class: d.Class.String(), Reason: d.Reason},
		Agrees: x.sent() && x.agrees(),
	}
	if p.Protocol.IsICMP(p.Family()) {
		v.ICMPType, v.ICMPCode = &p.ICMPType, &p.ICMPCode
	}
	if x.answers != nil {
		place := places[x.answers]
		v.Answers = &place
	}
	if d.Allow {
		v.Policy.Verdict = "allow"
	}
	if d.Rule != nil {
		v.Policy.Rule = d.Rule.Address()
	}
	if d.ACLEntry != nil {
		v.Policy.ACLEntry = d.ACLEntry.Address()
	}
	if x.sent() {
		v.Kernel = &labKernelView{Verdict: "dropped", Entry: x.entry}
		if x.finding.Passed {
			v.Kernel.Verdict = "passed"
		}
	}
	return v
}
