package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"sgc/internal/flow"
)

// The kernel keeps names of up to 255 bytes, nft comments of up to 128.
const (
	maxName    = 180 // leaves room for suffixes
	maxComment = 128
)

// familySuffix ends the names of what is made once for each family.
func familySuffix(f flow.Family) string {
	if f == flow.IPv4 {
		return "ipv4"
	}
	return "ipv6"
}

// protoName names a protocol within a family, "tcp4", "icmp6".
func protoName(p flow.Protocol, f flow.Family) string {
	if p.IsICMP(f) {
		return fmt.Sprintf("icmp%d", f)
	}
	return fmt.Sprintf("%s%d", p, f)
}

// join puts names together with a separator that none of them holds.
func join(names []string) string { return shorten(strings.Join(names, "/")) }

// shorten returns the name if the kernel can hold it. Of a longer one it keeps
// the beginning and puts a digest of the whole at its end, so that different
// names stay different; "//" stands in no other name.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return strings.TrimRight(name[:maxName-34], "/") + "//" + hex.EncodeToString(sum[:16])
}

// identifier turns the name of an interface into part of an nft identifier.
// Letters, digits, "_", "-" and "." stay; any other byte becomes "/" and its
// hexadecimal value. No interface name holds a "/", so that different names
// stay different.
func identifier(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "/%02x", c)
		}
	}
	return b.String()
}

// comment joins policy addresses to a comment that nft accepts.
func comment(addresses []string) string {
	s := strings.Join(addresses, ", ")
	if len(s) <= maxComment {
		return s
	}
	const more = " and more"
	cut := s[:maxComment-len(more)]
	if i := strings.LastIndex(cut, ", "); i > 0 {
		cut = cut[:i]
	}
	return cut + more
}
