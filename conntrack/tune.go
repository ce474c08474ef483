package conntrack

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Messages and attributes of the timeouts' subsystem.
//
// Source: linux/netfilter/nfnetlink_cttimeout.h.
const (
	subsystemTimeouts = 8
	messageSetDefault = subsystemTimeouts<<8 | 3
	messageGetDefault = subsystemTimeouts<<8 | 4

	attrTimeoutL3   = 2
	attrTimeoutL4   = 3
	attrTimeoutData = 4

	// protocolGeneric stands for all protocols without a tracker of their own.
	protocolGeneric = 255
)

// kernelSetting is where the kernel keeps a setting.
type kernelSetting struct {
	// family, protocol and state name a default timeout; state is 0 for what is
	// none.
	family, protocol uint8
	state            uint16
	sysctl           string
}

var kernelSettings = [settingCount]kernelSetting{
	TimeoutTCPEstablished: {unix.AF_INET, unix.IPPROTO_TCP, 3, "net.netfilter.nf_conntrack_tcp_timeout_established"},
	TimeoutUDP:            {unix.AF_INET, unix.IPPROTO_UDP, 1, "net.netfilter.nf_conntrack_udp_timeout"},
	TimeoutUDPStream:      {unix.AF_INET, unix.IPPROTO_UDP, 2, "net.netfilter.nf_conntrack_udp_timeout_stream"},
	TimeoutICMP:           {unix.AF_INET, unix.IPPROTO_ICMP, 1, "net.netfilter.nf_conntrack_icmp_timeout"},
	TimeoutICMPv6:         {unix.AF_INET6, unix.IPPROTO_ICMPV6, 1, "net.netfilter.nf_conntrack_icmpv6_timeout"},
	TimeoutGeneric:        {unix.AF_INET, protocolGeneric, 1, "net.netfilter.nf_conntrack_generic_timeout"},
	MaxEntries:            {sysctl: sysctlMax},
}

// Way says how the kernel was told a setting.
type Way string

// The ways. The kernel has the first for timeouts if it is built with
// CONFIG_NF_CT_NETLINK_TIMEOUT (module nfnetlink_cttimeout).
const (
	ByNetlink Way = "netlink"
	BySysctl  Way = "sysctl"
)

// errNoTimeouts says that the kernel has no timeouts over netlink.
var errNoTimeouts = errors.New("this kernel sets no conntrack timeouts over netlink")

// timeoutError tells a kernel without the subsystem, to which it is an invalid
// message type, or without the protocol, from all other failures.
func timeoutError(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", errNoTimeouts, err)
	}
	return explain(err)
}

// Settings reads all settings of the namespace. Those that the kernel does not
// have are missing.
func (t *Table) Settings() (Settings, error) {
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	have := Settings{}
	for _, s := range AllSettings() {
		v, err := t.setting(c, kernelSettings[s])
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, errors.Join(fmt.Errorf("read the conntrack setting %s: %w", s, err), c.close())
		default:
			have[s] = v
		}
	}
	return have, c.close()
}

// setting reads one setting: a timeout over netlink, if the kernel has that.
func (t *Table) setting(c *conn, k kernelSetting) (uint32, error) {
	if k.state != 0 {
		v, err := t.getTimeout(c, k)
		if !errors.Is(err, errNoTimeouts) {
			return v, err
		}
	}
	text, err := t.readSysctl(k.sysctl)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", k.sysctl, err)
	}
	return uint32(v), nil
}

func (t *Table) getTimeout(c *conn, k kernelSetting) (uint32, error) {
	if t.noTimeouts {
		return 0, errNoTimeouts
	}
	payload, err := c.get(messageGetDefault, k.header)
	if err != nil {
		return 0, timeoutError(err)
	}
	if len(payload) < nlmsg.NetfilterSize {
		return 0, nlmsg.ErrMalformed
	}
	a := nlmsg.Walk(payload[nlmsg.NetfilterSize:])
	for a.Next() {
		if a.Type != attrTimeoutData {
			continue
		}
		data := nlmsg.Walk(a.Data)
		for data.Next() {
			if data.Type == k.state {
				v := data.Uint32()
				return v, data.Err
			}
		}
	}
	return 0, nlmsg.ErrMalformed
}

// header appends what names the default timeouts of a protocol.
func (k kernelSetting) header(m *nlmsg.Message) {
	m.Netfilter(k.family, 0)
	m.Uint16(attrTimeoutL3, uint16(k.family))
	m.Uint8(attrTimeoutL4, k.protocol)
}

// Tuned is a change that was made, or that the namespace does not allow.
type Tuned struct {
	SettingChange
	// By says how it was made; "" if it was not.
	By Way
	// Refused says why the change cannot be made in this namespace.
	Refused string
}

// Locks says which settings the namespace does not let this process change: the
// errors of opening them. Timeouts that are set over netlink are never locked.
type Locks map[Setting]error

// Locks finds out what is locked. It changes nothing.
func (t *Table) Locks() (Locks, error) {
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	locks := Locks{}
	for _, s := range AllSettings() {
		k := kernelSettings[s]
		if k.state != 0 {
			if _, err := t.getTimeout(c, k); !errors.Is(err, errNoTimeouts) {
				continue
			}
		}
		err := t.inside(func() error {
			f, err := os.OpenFile(t.sysctlPath(k.sysctl), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			locks[s] = fmt.Errorf("open %s: %w", k.sysctl, err)
		}
	}
	return locks, c.close()
}

// Refuses says why the namespace refuses a change, and what else to do; "" if
// it does not, or for a reason that making the change tells as an error.
func (l Locks) Refuses(change SettingChange) string {
	return refusal(change, l[change.Setting])
}

// Refuses says why the namespace would refuse a change, or "" if it would not,
// as far as that can be known without making it.
func (t *Table) Refuses(change SettingChange) (string, error) {
	locks, err := t.Locks()
	if err != nil {
		return "", err
	}
	return locks.Refuses(change), nil
}

// Tune makes changes to the namespace's settings. The limit of the table is the
// host's alone, and /proc/sys may be read-only: where a setting cannot be changed,
// the change comes back as refused.
// After any other failure the settings are as they were.
func (t *Table) Tune(changes []SettingChange) ([]Tuned, error) {
	for _, change := range changes {
		if err := change.Setting.Check(change.New); err != nil {
			return nil, err
		}
	}
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	var done []Tuned
	for _, change := range changes {
		one, err := t.tune(c, change)
		if err != nil {
			err = fmt.Errorf("set the conntrack setting %s to %s: %w", change.Setting, change.Setting.Value(change.New), err)
			return nil, errors.Join(err, t.undo(c, done), c.close())
		}
		done = append(done, one)
	}
	return done, c.close()
}

// undo brings back what changes have changed, the last first.
func (t *Table) undo(c *conn, done []Tuned) error {
	var failed []error
	for _, one := range slices.Backward(done) {
		if one.By == "" {
			continue
		}
		if _, err := t.tune(c, SettingChange{one.Setting, one.New, one.Old}); err != nil {
			failed = append(failed, fmt.Errorf("bring back the conntrack setting %s, %s: %w", one.Setting, one.Setting.Value(one.Old), err))
		}
	}
	return errors.Join(failed...)
}

func (t *Table) tune(c *conn, change SettingChange) (Tuned, error) {
	k := kernelSettings[change.Setting]
	if k.state != 0 {
		err := t.setTimeout(c, k, change.New)
		if !errors.Is(err, errNoTimeouts) {
			return Tuned{SettingChange: change, By: ByNetlink}, err
		}
	}
	err := t.writeSysctl(k.sysctl, strconv.FormatUint(uint64(change.New), 10))
	if err != nil {
		if why := refusal(change, err); why != "" {
			return Tuned{SettingChange: change, Refused: why}, nil
		}
		return Tuned{}, explain(err)
	}
	return Tuned{SettingChange: change, By: BySysctl}, nil
}

func (t *Table) setTimeout(c *conn, k kernelSetting, seconds uint32) error {
	if t.noTimeouts {
		return errNoTimeouts
	}
	err := c.set(messageSetDefault, func(m *nlmsg.Message) {
		k.header(m)
		data := m.Nest(attrTimeoutData)
		m.Uint32(k.state, seconds)
		m.End(data)
	})
	if err != nil {
		return timeoutError(err)
	}
	return nil
}

// refusal says why a namespace may not change a setting, or "" if something
// else is the matter.
func refusal(change SettingChange, err error) string {
	sysctl := kernelSettings[change.Setting].sysctl
	switch {
	case err == nil:
	case errors.Is(err, unix.EROFS) && change.Setting == MaxEntries:
		return fmt.Sprintf("/proc/sys is read-only here: sysctl -w %s=%d on the host", sysctl, change.New)
	case errors.Is(err, unix.EROFS):
		return fmt.Sprintf("the kernel takes no timeouts over netlink without the module nfnetlink_cttimeout, and /proc/sys is read-only here: modprobe nfnetlink_cttimeout on the host, or make %s writable", sysctl)
	case change.Setting != MaxEntries:
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, os.ErrNotExist):
		return fmt.Sprintf("the limit is one for the whole host, and only its first network namespace may set it: sysctl -w %s=%d there", sysctl, change.New)
	}
	return ""
}
