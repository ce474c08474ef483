package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// bootFiles are what the nftables service loads at the boot and whenever it is
// started or reloaded: on Debian and its like, on Fedora and its like, and on
// Alpine. What they include counts, too.
var bootFiles = []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.nft"}

// bootFlush is a "flush ruleset" in the boot configuration.
type bootFlush struct {
	File string
	Line int
	// Err is set if the file could not be read; Line is 0 then.
	Err error
}

// findBootFlushes looks through the boot configuration for what takes table
// inet sgc away. root is the file system of the machine. Debian and others
// bring files that flush with a service that is not enabled: where systemd says
// so, nobody loads them.
func findBootFlushes(root fs.FS) []bootFlush {
	if !serviceEnabled(root) {
		return nil
	}
	s := bootScan{root: root, seen: map[string]bool{}}
	for _, name := range bootFiles {
		s.file(name, 0)
	}
	return s.found
}

// serviceEnabled reports whether something starts the nftables service. Without
// systemd, that is taken for granted.
func serviceEnabled(root fs.FS) bool {
	if _, err := fs.Stat(root, "etc/systemd/system"); err != nil {
		return true
	}
	for _, pattern := range []string{"etc/systemd/system/*.wants/nftables.service", "etc/systemd/system/*.requires/nftables.service"} {
		if names, err := fs.Glob(root, pattern); err != nil || len(names) > 0 {
			return true
		}
	}
	return false
}

type bootScan struct {
	root  fs.FS
	seen  map[string]bool
	found []bootFlush
}

// includeDepth is how deep nft follows includes.
const includeDepth = 16

// file looks through one file, by its absolute path. One that is not there
// holds nothing; nft itself would refuse to load what includes it.
func (s *bootScan) file(name string, depth int) {
	if s.seen[name] || depth > includeDepth {
		return
	}
	s.seen[name] = true
	if info, err := fs.Stat(s.root, name[1:]); err == nil && !info.Mode().IsRegular() {
		return
	}
	content, err := fs.ReadFile(s.root, name[1:])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		s.found = append(s.found, bootFlush{File: name, Err: cause(err)})
		return
	}
	for statement := range nftStatements(string(content)) {
		switch {
		case statement.flushesInet():
			s.found = append(s.found, bootFlush{File: name, Line: statement.line})
		case len(statement.words) == 2 && statement.words[0] == "include":
			for _, included := range s.glob(strings.Trim(statement.words[1], `"`)) {
				s.file(included, depth+1)
			}
		}
	}
}

// glob returns the files that an include names, sorted.
//
// Source: nft(8), "include": paths are absolute, begin with "./", or are those
// of files in /etc; wildcards match no names that begin with a dot. The service
// runs in the root directory.
func (s *bootScan) glob(pattern string) []string {
	switch {
	case strings.HasPrefix(pattern, "./"):
		pattern = pattern[1:]
	case !strings.HasPrefix(pattern, "/"):
		pattern = "/etc/" + pattern
	}
	pattern = path.Clean(pattern)
	// A malformed pattern matches nothing, as in nft.
	names, _ := fs.Glob(s.root, pattern[1:])
	names = slices.DeleteFunc(names, func(name string) bool {
		return strings.HasPrefix(path.Base(name), ".") && !strings.HasPrefix(path.Base(pattern), ".")
	})
	for i := range names {
		names[i] = "/" + names[i]
	}
	slices.Sort(names)
	return names
}

// nftStatement is one statement of a script: its words, and the line in which
// it begins.
type nftStatement struct {
	line  int
	words []string
}

// flushesInet reports whether the statement deletes all tables of the inet
// family. "flush ruleset ip" and the like leave them alone.
func (s nftStatement) flushesInet() bool {
	w := s.words
	if len(w) < 2 || w[0] != "flush" || w[1] != "ruleset" {
		return false
	}
	return len(w) == 2 || !slices.Contains([]string{"ip", "ip6", "arp", "bridge", "netdev"}, w[2])
}

// nftStatements splits a script into statements as far as it takes to find
// those that stand by themselves: at ";", braces and ends of lines that no
// backslash continues, without comments. Strings are one word, with their
// quotes.
func nftStatements(text string) func(yield func(nftStatement) bool) {
	return func(yield func(nftStatement) bool) {
		line, s := 1, nftStatement{}
		word := func(w string) {
			if len(s.words) == 0 {
				s.line = line
			}
			s.words = append(s.words, w)
		}
		for len(text) > 0 {
			n := 1
			end := false
			switch c := text[0]; {
			case c == '\n':
				end = true
			case c == ';', c == '{', c == '}':
				end = true
			case strings.HasPrefix(text, "\\\n"):
				n, line = 2, line+1
			case c == '#':
				n = lengthUntil(text, "\n")
			case c == '"':
				n = min(lengthUntil(text[1:], "\"\n")+2, len(text))
				if text[n-1] == '\n' {
					n-- // a string ends with its line
				}
				word(text[:n])
			case strings.IndexByte(" \t\r\\", c) >= 0:
			default:
				n = lengthUntil(text, " \t\r\n;{}#\"\\")
				word(text[:n])
			}
			if end {
				if len(s.words) > 0 && !yield(s) {
					return
				}
				s = nftStatement{}
			}
			if text[0] == '\n' {
				line++
			}
			text = text[n:]
		}
		if len(s.words) > 0 {
			yield(s)
		}
	}
}

// lengthUntil returns how many bytes come before the first of any of chars.
func lengthUntil(text, chars string) int {
	if n := strings.IndexAny(text, chars); n >= 0 {
		return n
	}
	return len(text)
}

// bootWarnings says what the boot configuration does to sgc's table.
func bootWarnings(flushes []bootFlush) []warning {
	var out []warning
	for _, f := range flushes {
		if f.Err != nil {
			out = append(out, warning{
				Kind: warnBoot, Subject: f.File,
				Text: fmt.Sprintf("%s cannot be read (%v), so nobody knows whether it deletes table inet sgc when it is loaded at the boot. Look for \"flush ruleset\" in it.", f.File, f.Err),
			})
			continue
		}
		where := fmt.Sprintf("%s:%d", f.File, f.Line)
		out = append(out, warning{
			Kind: warnBoot, Subject: where,
			Text: fmt.Sprintf("%s says \"flush ruleset\": when it is loaded, at the boot or by a start or reload of the nftables service, table inet sgc is deleted and everything passes. Let it delete its own tables alone.", where),
		})
	}
	return out
}
