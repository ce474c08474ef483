package policies

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"sgc/internal/regular"
)

// prefixList decodes one prefix_list block.
func (l *loader) prefixList(b declared) *PrefixList {
	d := l.decodeTop(b)
	out := &PrefixList{Name: b.name, Description: d.description(), Pos: l.pos(b.header)}
	entries := d.prefixes("entries", prefixForm{})
	all := entries.val
	file := d.text("file")
	if file.set {
		all = append(all, l.listFile(d, &file)...)
	}
	if !entries.set && !entries.broken && !file.set && !file.broken && !d.anyMeant("entries", "file") {
		l.errorAt(b.header, "List without entries", `Write entries = ["198.51.100.0/24", …], or file = "…" with one CIDR a line; entries = [] is a list that matches nothing.`)
	}
	// Lists are often made by programs, so what stands twice is no error.
	var again []*located
	var first *located
	out.Entries = unique(all, func(p, f *located) {
		if again = append(again, p); first == nil || p.sequence < again[0].sequence {
			again[0], again[len(again)-1] = p, again[0]
			first = f
		}
	})
	if len(again) > 0 {
		detail := fmt.Sprintf("%s stands twice in the list%s; one of the two has no effect.", again[0].prefix, d.whereFirst(again[0].rng(), first))
		if n := len(again) - 1; n > 0 {
			detail += fmt.Sprintf(" So does %s of the list.", plural(n, "further entry"))
		}
		l.warnAt(again[0].rng(), "CIDR listed twice", detail)
	}
	return out
}

// listFile is a file with one CIDR a line. Blank lines, and what follows a #,
// do not count.
type listFile struct {
	src *source
	// spans are the places of the CIDRs.
	spans []span
}

func (f *listFile) rangeAt(i int) hcl.Range {
	return f.src.rangeOf(int(f.spans[i].start), int(f.spans[i].end))
}

// listFile reads the file that a prefix list names, relative to the directory
// of the policy.
func (l *loader) listFile(d *decoder, name *field[string]) []located {
	if strings.TrimSpace(name.val) == "" {
		fail(d, name, "Invalid file", "The name of the file is empty.")
		return nil
	}
	path := l.resolve(name.val)
	text, err := regular.ReadFile(path, maxSource)
	if err != nil {
		fail(d, name, "Cannot read the list", fmt.Sprintf("%s: %s. The path starts from the directory of the policy.", path, reason(err)))
		return nil
	}
	l.read[path] = true
	src := l.sources[path]
	if src == nil {
		src = l.addSource(path, text)
	}
	// A line holds at least 8 bytes, mostly about 16.
	file := &listFile{src: src, spans: make([]span, 0, len(text)/16)}
	out := make([]located, 0, cap(file.spans))
	faults := faultCounter{l: l}
	start := 0
	if bytes.HasPrefix(text, []byte("\ufeff")) {
		start = len("\ufeff")
	}
	for start < len(text) {
		end := bytes.IndexByte(text[start:], '\n')
		if end < 0 {
			end = len(text)
		} else {
			end += start
		}
		at, s := entryOf(text, start, end)
		start = end + 1
		if s == "" {
			continue
		}
		place := span{int32(at), int32(at + len(s))}
		p, canonical, problem := parsePrefix(s, prefixForm{})
		if strings.ContainsAny(s, " \t,;") {
			problem = fmt.Sprintf("%s is more than one word: a line holds one CIDR, and what is behind a # is a comment.", quoteShort(s))
		}
		switch {
		case problem != "":
			faults.error(src.rangeOf(at, at+len(s)), "Invalid CIDR", problem)
			continue
		case !canonical:
			faults.warn(src.rangeOf(at, at+len(s)), "CIDR with host bits", fmt.Sprintf("%s is taken as %s; write that.", quoteShort(s), p))
		}
		out = append(out, located{prefix: p, in: file, index: int32(len(file.spans))})
		file.spans = append(file.spans, place)
	}
	faults.finish(name.at(), "in "+path)
	return out
}

// entryOf returns the text of a line without comment and white space, and its
// offset.
func entryOf(text []byte, start, end int) (int, string) {
	line := text[start:end]
	if i := bytes.IndexByte(line, '#'); i >= 0 {
		line = line[:i]
	}
	trimmed := bytes.TrimLeft(line, " \t\r")
	start += len(line) - len(trimmed)
	trimmed = bytes.TrimRight(trimmed, " \t\r")
	if !utf8.Valid(trimmed) {
		return start, strings.ToValidUTF8(string(trimmed), "\ufffd")
	}
	return start, string(trimmed)
}
