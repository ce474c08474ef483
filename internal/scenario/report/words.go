package report

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// printable replaces what would not be seen, or would turn what follows around,
// by how Go writes it.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// escape makes a text one of XML or HTML, in an element or an attribute.
func escape(s string) string {
	var b strings.Builder
	// It fails only where its writer does.
	_ = xml.EscapeText(&b, []byte(printable(s)))
	return b.String()
}

// isWide reports whether a character takes two columns of a terminal.
//
// Source: Unicode Standard Annex 11, East Asian Width; the blocks whose
// characters are wide.
func isWide(r rune) bool {
	switch {
	case r < 0x1100:
		return false
	case r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return true
	}
	return false
}

// em is the width of a character in a font of size 1, rather too much than too
// little: whose font it will be is not known.
func em(r rune) float64 {
	switch {
	case isWide(r):
		return 1.1
	case strings.ContainsRune(" .,:;'|!ijlftrI()[]-", r):
		return 0.38
	case strings.ContainsRune("mwMW@%→—…", r):
		return 0.95
	case unicode.IsUpper(r):
		return 0.7
	}
	return 0.58
}

func textWidth(s string, size float64) float64 {
	w := 0.0
	for _, r := range s {
		w += em(r)
	}
	return w * size
}

// fit shortens a text to a width.
func fit(s string, size, width float64) string {
	if textWidth(s, size) <= width {
		return s
	}
	width -= textWidth("…", size)
	w := 0.0
	for i, r := range s {
		if w += em(r) * size; w > width {
			if i == 0 {
				return ""
			}
			return strings.TrimRight(s[:i], " ") + "…"
		}
	}
	return s
}

// fitting returns how many bytes of a text fit into a width, at least those of its
// first character.
func fitting(s string, size, width float64) int {
	w := 0.0
	for i, r := range s {
		if w += em(r) * size; w > width && i > 0 {
			return i
		}
	}
	return len(s)
}

// wrap breaks a text into lines of a width. A word that is wider is broken, too.
func wrap(s string, size, width float64) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		for textWidth(word, size) > width {
			if line != "" {
				lines = append(lines, line)
			}
			n := fitting(word, size, width)
			lines, line, word = append(lines, word[:n]), "", word[n:]
		}
		switch {
		case line == "":
			line = word
		case textWidth(line+" "+word, size) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// seconds writes a time of the record.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) + " s"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
