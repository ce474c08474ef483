package policies

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the length of the longest name in bytes, the kernel's limit for
// names of chains and sets.
const maxName = 255

// nameProblem says what is wrong with the name of a group, list, ACL or rule,
// or returns "". Names become parts of nft identifiers and comments, so nothing
// passes that would need quoting there.
func nameProblem(name string) string {
	const allowed = "use letters, digits, _ and -, beginning with a letter"
	switch {
	case name == "":
		return "A name is empty: " + allowed + "."
	case len(name) > maxName:
		return fmt.Sprintf("A name of %d bytes is too long: the limit is %d.", len(name), maxName)
	case !isLetter(name[0]):
		return fmt.Sprintf("%q cannot be a name: %s.", name, allowed)
	}
	for _, c := range name {
		if c >= utf8.RuneSelf || !(isLetter(byte(c)) || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return fmt.Sprintf("%q cannot be a name, because of %q: %s.", name, c, allowed)
		}
	}
	return ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// maxInterfaceName is the kernel's IFNAMSIZ without the final zero.
const maxInterfaceName = 15

// interfaceProblem says what is wrong with the name of an interface, or
// returns "". It is the kernel's own rule, and no quotes, backslashes and
// control characters on top of it. A wildcard may end in an asterisk.
//
// Source: Linux net/core/dev.c, dev_valid_name.
func interfaceProblem(name string, wildcard bool) string {
	if wildcard {
		if i := strings.IndexByte(name, '*'); i >= 0 && i < len(name)-1 {
			return fmt.Sprintf("%q has an asterisk that is not its end: a wildcard is the beginning of a name and one asterisk, such as %q.", name, name[:i+1])
		}
	} else if strings.Contains(name, "*") {
		return fmt.Sprintf("%q is a wildcard; one interface is needed here.", name)
	}
	switch {
	case name == "":
		return "The name of an interface is empty."
	case len(name) > maxInterfaceName:
		return fmt.Sprintf("%q has %d bytes; the kernel allows %d in the name of an interface.", name, len(name), maxInterfaceName)
	case name == "." || name == "..":
		return fmt.Sprintf("The kernel allows no interface of the name %q.", name)
	case !utf8.ValidString(name):
		return fmt.Sprintf("%q is not valid UTF-8.", name)
	}
	for i, c := range name {
		bad := strings.ContainsRune("/:\"'`\\", c) || unicode.IsSpace(c) || !unicode.IsPrint(c) ||
			// The kernel looks at bytes, and 0xa0 is a space in Latin-1.
			strings.IndexByte(name[i:i+utf8.RuneLen(c)], 0xa0) >= 0
		if bad {
			return fmt.Sprintf("%q cannot be the name of an interface, because of %q.", name, c)
		}
	}
	return ""
}

// textProblem says what is wrong with text that people read, or returns "".
// Control characters could rewrite what a terminal shows of a plan.
func textProblem(text string) string {
	for _, c := range text {
		if c != '\n' && c != '\t' && (unicode.IsControl(c) || c == '\u2028' || c == '\u2029' || unicode.Is(unicode.Bidi_Control, c)) {
			return fmt.Sprintf("Text for people holds no control characters; remove %q.", c)
		}
	}
	return ""
}

// capital returns s with a capital first letter.
func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}
