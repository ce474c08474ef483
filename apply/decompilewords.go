package apply

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// addressTypes are the types of routes, as "fib" finds them.
//
// Source: Linux include/uapi/linux/rtnetlink.h, enum RTN_*.
var addressTypes = []string{
	"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit",
}

// flagsText names TCP flags, as nft groups them.
func flagsText(flags byte) string {
	var names []string
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"} {
		if flags&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return "0x0"
	case 1:
		return names[0]
	}
	return "(" + strings.Join(names, "|") + ")"
}

func fibText(a attributeMap) string {
	var words []string
	flags := a.u32(unix.NFTA_FIB_FLAGS)
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.NFTA_FIB_F_SADDR, "saddr"}, {unix.NFTA_FIB_F_DADDR, "daddr"}, {unix.NFTA_FIB_F_MARK, "mark"}, {unix.NFTA_FIB_F_IIF, "iif"}, {unix.NFTA_FIB_F_OIF, "oif"}} {
		if flags&f.bit != 0 {
			words = append(words, f.name)
		}
	}
	result := map[uint32]string{
		unix.NFT_FIB_RESULT_OIF: "oif", unix.NFT_FIB_RESULT_OIFNAME: "oifname", unix.NFT_FIB_RESULT_ADDRTYPE: "type",
	}[a.u32(unix.NFTA_FIB_RESULT)]
	return "fib " + strings.Join(words, " . ") + " " + result
}

func fibKind(a attributeMap) fieldKind {
	if a.u32(unix.NFTA_FIB_RESULT) == unix.NFT_FIB_RESULT_ADDRTYPE {
		return addressType
	}
	return nativeNumber
}

func limitText(a attributeMap) string {
	rate, unit := a[unix.NFTA_LIMIT_RATE], a[unix.NFTA_LIMIT_UNIT]
	if len(rate) != 8 || len(unit) != 8 {
		return "limit"
	}
	names := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
	name := names[binary.BigEndian.Uint64(unit)]
	if name == "" {
		name = fmt.Sprintf("%d seconds", binary.BigEndian.Uint64(unit))
	}
	over := ""
	if a.u32(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV != 0 {
		over = "over "
	}
	amount, burst := "/", " packets"
	if a.u32(unix.NFTA_LIMIT_TYPE) == unix.NFT_LIMIT_PKT_BYTES {
		amount, burst = " bytes/", " bytes"
	}
	text := fmt.Sprintf("limit rate %s%d%s%s", over, binary.BigEndian.Uint64(rate), amount, name)
	n := a.u32(unix.NFTA_LIMIT_BURST)
	if n == 0 && burst == " packets" {
		n = defaults["limit"][unix.NFTA_LIMIT_BURST]
	}
	if n != 0 {
		text += fmt.Sprintf(" burst %d%s", n, burst)
	}
	return text
}

func logText(a attributeMap) string {
	text := "log"
	if prefix := a.str(unix.NFTA_LOG_PREFIX); prefix != "" {
		text += fmt.Sprintf(" prefix %q", prefix)
	}
	if group := a[unix.NFTA_LOG_GROUP]; len(group) == 2 {
		text += fmt.Sprintf(" group %d", binary.BigEndian.Uint16(group))
	}
	return text
}

// durationText writes a time as nft does, "1d", "1h10m".
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	text := ""
	if d >= day {
		text = fmt.Sprintf("%dd", d/day)
		d %= day
	}
	if d == 0 && text != "" {
		return text
	}
	rest := d.String()
	if strings.HasSuffix(rest, "m0s") {
		rest = strings.TrimSuffix(rest, "0s")
	}
	if strings.HasSuffix(rest, "h0m") {
		rest = strings.TrimSuffix(rest, "0m")
	}
	return text + rest
}
