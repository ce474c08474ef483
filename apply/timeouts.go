package apply

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// Attributes of objects that hold timeouts, and their number among the types of
// objects.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h.
const (
	timeoutType = 7

	timeoutFamily   = 1
	timeoutProtocol = 2
	timeoutStates   = 3
)

// timeout is an object of timeouts in the kernel.
type timeout struct {
	family   uint16
	protocol uint8
	// states holds seconds by the numbers of the attributes.
	states map[uint16]uint32
}

// decodeTimeout reads the value of NFTA_OBJ_DATA.
func decodeTimeout(b string) (timeout, error) {
	t := timeout{states: map[uint16]uint32{}}
	a := nlmsg.Walk([]byte(b))
	for a.Next() {
		switch {
		case a.Type == timeoutFamily && len(a.Data) == 2:
			t.family = binary.BigEndian.Uint16(a.Data)
		case a.Type == timeoutProtocol && len(a.Data) == 1:
			t.protocol = a.Data[0]
		case a.Type == timeoutStates:
			s := nlmsg.Walk(a.Data)
			for s.Next() {
				t.states[s.Type] = s.Uint32()
			}
			if s.Err != nil {
				return t, s.Err
			}
		}
	}
	return t, a.Err
}

// is reports whether an object has what is wanted. States that the wanted one
// leaves out do not count.
func (o Other) is(want *ruleset.Timeout) bool {
	have, err := decodeTimeout(o.data)
	if err != nil || have.family != netfilterFamily(want.Family) || have.protocol != uint8(want.Protocol) {
		return false
	}
	for _, s := range want.States {
		if seconds, ok := have.states[s.State.Attribute()]; !ok || seconds != uint32(s.Timeout/time.Second) {
			return false
		}
	}
	return true
}

func netfilterFamily(f flow.Family) uint16 {
	if f == flow.IPv4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// timeoutNames are what nft calls the states, by protocol and attribute.
//
// Source: Linux include/uapi/linux/netfilter/nfnetlink_cttimeout.h.
var timeoutNames = map[uint8][]string{
	unix.IPPROTO_TCP: {
		1: "syn_sent", 2: "syn_recv", 3: "established", 4: "fin_wait", 5: "close_wait", 6: "last_ack",
		7: "time_wait", 8: "close", 9: "syn_sent2", 10: "retrans", 11: "unack",
	},
	unix.IPPROTO_UDP: {1: "unreplied", 2: "replied"},
}

// timeoutText writes an object of timeouts as ruleset.Timeout does, with the
// states that are wanted, or all of them if there is no such.
func (o Other) timeoutText(want *ruleset.Timeout) string {
	t, err := decodeTimeout(o.data)
	if err != nil || len(t.states) == 0 {
		return o.String()
	}
	family := map[uint16]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6"}[t.family]
	var listed []uint16
	if want != nil && uint8(want.Protocol) == t.protocol {
		for _, s := range want.States {
			listed = append(listed, s.State.Attribute())
		}
	} else {
		listed = slices.Sorted(maps.Keys(t.states))
	}
	var parts []string
	for _, state := range listed {
		name := fmt.Sprintf("state %d", state)
		if names := timeoutNames[t.protocol]; int(state) < len(names) && names[state] != "" {
			name = names[state]
		}
		parts = append(parts, fmt.Sprintf("%s : %d", name, t.states[state]))
	}
	return fmt.Sprintf("%s: %s %s { %s }", o, flow.Protocol(t.protocol), family, strings.Join(parts, ", "))
}

// objectPlan says what happens to one object.
type objectPlan struct {
	have *Other           // nil: it is new
	want *ruleset.Timeout // nil: it goes
	// fresh objects are deleted and added.
	fresh bool
	part  part
}

func (o objectPlan) name() string {
	if o.want != nil {
		return o.want.Name
	}
	return o.have.Name
}

// pairObjects finds for every object its counterpart.
func (p *planner) pairObjects() {
	p.freshObjects = map[string]bool{}
	have := map[string]*Other{}
	for i, o := range p.have.Others {
		if o.kind == timeoutType {
			have[o.Name] = &p.have.Others[i]
		}
	}
	wanted := map[*Other]bool{}
	for _, want := range p.want.Timeouts {
		plan := objectPlan{have: have[want.Name], want: want, part: preparing}
		if plan.have != nil {
			wanted[plan.have] = true
			plan.fresh = !plan.have.is(want)
			plan.part = switching
			p.freshObjects[want.Name] = plan.fresh
		}
		p.objects = append(p.objects, plan)
	}
	for i := range p.have.Others {
		if o := &p.have.Others[i]; !wanted[o] {
			p.objects = append(p.objects, objectPlan{have: o, part: cleaning})
		}
	}
	slices.SortStableFunc(p.objects, func(a, b objectPlan) int { return cmp.Compare(a.name(), b.name()) })
}

func (p *planner) reportObject(o objectPlan) {
	switch {
	case o.want == nil && o.have.kind == timeoutType:
		p.gone(node{ObjectKind, o.have.Name}, ObjectKind, "", func() string { return o.have.timeoutText(nil) })
	case o.want == nil:
		p.change(Remove, ObjectKind, o.have.Name, "", text(o.have.String()), nil)
	case o.have == nil:
		p.change(Add, ObjectKind, o.want.Name, "", o.want.String, nil)
	case o.fresh:
		p.change(Update, ObjectKind, o.want.Name, "", o.want.String, func() string { return o.have.timeoutText(o.want) })
	}
}

func (p *planner) addTimeout(t *ruleset.Timeout) {
	m := p.begin(unix.NFT_MSG_NEWOBJ, create, operation{action: Add, kind: ObjectKind, name: t.Name})
	m.CString(objectTable, tableName)
	m.CString(otherName, t.Name)
	m.Uint32(objectType, timeoutType)
	data := m.Nest(objectData)
	m.Bytes(timeoutFamily, binary.BigEndian.AppendUint16(nil, netfilterFamily(t.Family)))
	m.Bytes(timeoutProtocol, []byte{uint8(t.Protocol)})
	states := m.Nest(timeoutStates)
	for _, s := range t.States {
		m.Uint32(s.State.Attribute(), uint32(s.Timeout/time.Second))
	}
	m.End(states)
	m.End(data)
	m.Finish()
}

// maxTimeout is the longest timeout that a kernel of any tick rate can count:
// 32 bits of ticks, up to 1000 a second.
const maxTimeout = math.MaxUint32 / 1000 * time.Second

// checkTimeout fails for an object that the kernel would refuse, or read
// otherwise.
func checkTimeout(t *ruleset.Timeout) error {
	if t.Family != flow.IPv4 && t.Family != flow.IPv6 {
		return fmt.Errorf("ct timeout %s is of no family", t.Name)
	}
	names := timeoutNames[uint8(t.Protocol)]
	if names == nil {
		return fmt.Errorf("ct timeout %s is for %s: it can be for tcp and udp", t.Name, t.Protocol)
	}
	if len(t.States) == 0 {
		return fmt.Errorf("ct timeout %s has no timeouts", t.Name)
	}
	var errs []error
	last := uint16(0)
	for _, s := range t.States {
		n := s.State.Attribute()
		switch {
		case int(n) >= len(names) || names[n] != s.State.String():
			errs = append(errs, fmt.Errorf("ct timeout %s: flows of %s are never %s", t.Name, t.Protocol, s.State))
		case n <= last:
			errs = append(errs, fmt.Errorf("ct timeout %s: %s is not behind the state before it", t.Name, s.State))
		case s.Timeout <= 0 || s.Timeout%time.Second != 0 || s.Timeout > maxTimeout:
			errs = append(errs, fmt.Errorf("ct timeout %s: %s for %s: whole seconds up to %d are possible", t.Name, s.Timeout, s.State, maxTimeout/time.Second))
		}
		last = n
	}
	return errors.Join(errs...)
}
