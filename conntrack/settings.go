package conntrack

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"sgc/policies"
)

// Setting is something of a namespace's connection tracking that a policy sets.
type Setting uint8

// The settings, in the order in which they are shown and made. The limit comes
// last: it is the one that most namespaces may not change.
const (
	TimeoutTCPEstablished Setting = iota
	TimeoutUDP
	TimeoutUDPStream
	TimeoutICMP
	TimeoutICMPv6
	TimeoutGeneric
	MaxEntries
	settingCount
)

// AllSettings lists them in order.
func AllSettings() []Setting {
	all := make([]Setting, settingCount)
	for i := range all {
		all[i] = Setting(i)
	}
	return all
}

var settingNames = [settingCount]string{
	TimeoutTCPEstablished: "tcp_established_timeout",
	TimeoutUDP:            "udp_timeout",
	TimeoutUDPStream:      "udp_stream_timeout",
	TimeoutICMP:           "icmp_timeout",
	TimeoutICMPv6:         "icmpv6_timeout",
	TimeoutGeneric:        "generic_timeout",
	MaxEntries:            "max",
}

// String is the setting's name in policies.
func (s Setting) String() string {
	if s < settingCount {
		return settingNames[s]
	}
	return fmt.Sprintf("setting %d", uint8(s))
}

// MarshalText is the setting's name, for JSON.
func (s Setting) MarshalText() ([]byte, error) {
	if s >= settingCount {
		return nil, fmt.Errorf("there is no conntrack setting %d", uint8(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *Setting) UnmarshalText(text []byte) error {
	i := slices.Index(settingNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("there is no conntrack setting %q", text)
	}
	*s = Setting(i)
	return nil
}

// IsTimeout reports whether the setting's values are seconds; those of the
// other are entries.
func (s Setting) IsTimeout() bool { return s != MaxEntries }

// Value returns a value of the setting as people write it.
func (s Setting) Value(v uint32) string {
	if s.IsTimeout() {
		return strconv.Itoa(int(v)) + "s"
	}
	return strconv.Itoa(int(v))
}

// Settings are values of settings: seconds for timeouts, entries for the limit.
// What is not in it is left alone, or unknown.
type Settings map[Setting]uint32

// maxTimeout is the longest timeout that the kernel takes as what it is: it
// counts in 32 bits of up to a thousandth of a second, and overflows silently.
const maxTimeout = math.MaxUint32 / 1000 * time.Second

// wholeSeconds returns the number of seconds for the kernel, rounded up.
func wholeSeconds(d time.Duration) (uint32, error) {
	if d <= 0 || d > maxTimeout {
		return 0, fmt.Errorf("a timeout of %s: the kernel takes 1s to %s", d, maxTimeout)
	}
	return uint32((d + time.Second - 1) / time.Second), nil
}

// Check returns an error if the kernel would not take the value, or would take
// it for another.
func (s Setting) Check(v uint32) error {
	if s >= settingCount {
		return fmt.Errorf("there is no conntrack setting %d", uint8(s))
	}
	if !s.IsTimeout() {
		// 0 is no limit.
		if v > math.MaxInt32 {
			return fmt.Errorf("%s of %d: the kernel takes 0 to %d", s, v, math.MaxInt32)
		}
		return nil
	}
	if _, err := wholeSeconds(time.Duration(v) * time.Second); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

// Wanted returns the settings that a policy asks for (2.7). The host's TCP and
// UDP timeouts are those of the interface blocks where all of them agree, else
// those of the language; a policy without interface blocks leaves them alone.
// The others are set where the host's conntrack block names them.
func Wanted(p *policies.Policy) Settings {
	want := Settings{}
	host := p.HostTimeouts()
	want.setTimeout(TimeoutTCPEstablished, host.TCPEstablished)
	want.setTimeout(TimeoutUDP, host.UDP)
	want.setTimeout(TimeoutUDPStream, host.UDPStream)
	if c := p.Host.Conntrack; c != nil {
		want.setTimeout(TimeoutICMP, c.ICMPTimeout)
		want.setTimeout(TimeoutICMPv6, c.ICMPTimeout)
		want.setTimeout(TimeoutGeneric, c.GenericTimeout)
		if c.Max > 0 {
			want[MaxEntries] = uint32(min(c.Max, math.MaxInt32))
		}
	}
	return want
}

// setTimeout sets a timeout unless it is 0.
func (s Settings) setTimeout(of Setting, d time.Duration) {
	if d > 0 {
		s[of] = uint32((d + time.Second - 1) / time.Second)
	}
}

// SettingChange is a setting whose value is not the wanted one.
type SettingChange struct {
	Setting  Setting
	Old, New uint32
}

func (c SettingChange) String() string {
	return fmt.Sprintf("%s %s → %s", c.Setting, c.Setting.Value(c.Old), c.Setting.Value(c.New))
}

// MissingSettings returns what is wanted and not in have, in order: the kernel
// has no such setting.
func MissingSettings(have, want Settings) []Setting {
	var missing []Setting
	for _, s := range AllSettings() {
		_, wanted := want[s]
		if _, known := have[s]; wanted && !known {
			missing = append(missing, s)
		}
	}
	return missing
}

// DiffSettings returns what is to change, so that have becomes want, in order.
// What is not in want stays, and what is not in have cannot be changed.
//
// To bring back settings that were recorded earlier, they are what is wanted.
func DiffSettings(have, want Settings) []SettingChange {
	var changes []SettingChange
	for _, s := range AllSettings() {
		old, known := have[s]
		if v, ok := want[s]; ok && known && v != old {
			changes = append(changes, SettingChange{s, old, v})
		}
	}
	return changes
}
