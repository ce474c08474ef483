package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// flushesText writes what was found as "FILE:LINE", separated by spaces.
func flushesText(found []bootFlush) string {
	var out []string
	for _, f := range found {
		if f.Err != nil {
			out = append(out, fmt.Sprintf("%s:%v", f.File, f.Err))
			continue
		}
		out = append(out, fmt.Sprintf("%s:%d", f.File, f.Line))
	}
	return strings.Join(out, " ")
}

// tree makes a file system of "NAME\nCONTENT" strings.
func tree(files ...string) fstest.MapFS {
	root := fstest.MapFS{}
	for _, f := range files {
		name, content, _ := strings.Cut(f, "\n")
		root[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return root
}

func TestBootFlushes(t *testing.T) {
	const debian = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\tchain input { type filter hook input priority filter; }\n}\n"
	for _, tc := range []struct {
		name  string
		files []string
		want  string
	}{
		{"no configuration", nil, ""},
		{"Debian's", []string{"etc/nftables.conf\n" + debian}, "/etc/nftables.conf:3"},
		{"Debian's, with a service that systemd does not start", []string{"etc/nftables.conf\n" + debian, "etc/systemd/system/multi-user.target.wants/cron.service\n"}, ""},
		{"Debian's, with a service that systemd starts", []string{"etc/nftables.conf\n" + debian, "etc/systemd/system/sysinit.target.wants/nftables.service\n"}, "/etc/nftables.conf:3"},
		{"a table alone", []string{"etc/nftables.conf\ntable inet filter {\n}\n"}, ""},
		{"its own table", []string{"etc/nftables.conf\ntable inet filter\ndelete table inet filter\nflush table inet filter\n"}, ""},
		{"a comment", []string{"etc/nftables.conf\n# flush ruleset\ntable ip a { } # flush ruleset\n"}, ""},
		{"a string", []string{"etc/nftables.conf\ntable ip a { chain c { tcp dport 1 accept comment \"x; flush ruleset\"; }; }\n"}, ""},
		{"a string that is not closed ends with its line", []string{"etc/nftables.conf\ndefine x = \"a\nflush ruleset\n"}, "/etc/nftables.conf:2"},
		{"behind a semicolon", []string{"etc/nftables.conf\nadd table ip a; flush ruleset; add table ip b"}, "/etc/nftables.conf:1"},
		{"behind a table", []string{"etc/nftables.conf\ntable ip a { }\n\tflush\t ruleset # all\n"}, "/etc/nftables.conf:2"},
		{"over two lines", []string{"etc/nftables.conf\n\nflush \\\n  ruleset\n"}, "/etc/nftables.conf:2"},
		{"with the line ends of another system", []string{"etc/nftables.conf\nflush ruleset\r\n"}, "/etc/nftables.conf:1"},
		{"other families", []string{"etc/nftables.conf\nflush ruleset ip\nflush ruleset ip6\nflush ruleset bridge\n"}, ""},
		{"the inet family", []string{"etc/nftables.conf\nflush ruleset ip\nflush ruleset inet\n"}, "/etc/nftables.conf:2"},
		{"words in another order", []string{"etc/nftables.conf\nruleset flush\nlist ruleset\nflush\nruleset\n"}, ""},
		{"Fedora's, in a file that is included", []string{
			"etc/sysconfig/nftables.conf\n# nft\ninclude \"/etc/nftables/main.nft\"\n",
			"etc/nftables/main.nft\nflush ruleset\n", "etc/nftables/nat.nft\nflush ruleset\n"}, "/etc/nftables/main.nft:1"},
		{"a directory that nobody refers to", []string{"etc/nftables.conf\n", "etc/nftables/main.nft\nflush ruleset\n"}, ""},
		{"wildcards", []string{
			"etc/nftables.conf\ninclude \"/etc/nftables.d/*.nft\"\n",
			"etc/nftables.d/b.nft\n\nflush ruleset\n", "etc/nftables.d/a.nft\nflush ruleset\n",
			"etc/nftables.d/.hidden.nft\nflush ruleset\n", "etc/nftables.d/c.conf\nflush ruleset\n"},
			"/etc/nftables.d/a.nft:1 /etc/nftables.d/b.nft:2"},
		{"wildcards that match nothing", []string{"etc/nftables.conf\ninclude \"/etc/nftables.d/*.nft\"\ninclude \"/etc/[\"\n"}, ""},
		{"relative to /etc", []string{"etc/nftables.conf\ninclude \"nft/main\"\n", "etc/nft/main\nflush ruleset\n"}, "/etc/nft/main:1"},
		{"relative to where the service runs", []string{"etc/nftables.conf\ninclude \"./srv/main\"\n", "srv/main\nflush ruleset\n"}, "/srv/main:1"},
		{"above the root", []string{"etc/nftables.conf\ninclude \"/../../srv/main\"\n", "srv/main\nflush ruleset\n"}, "/srv/main:1"},
		{"a directory", []string{"etc/nftables.conf\ninclude \"/etc/nftables.d\"\n", "etc/nftables.d/a.nft\nflush ruleset\n"}, ""},
		{"included twice", []string{"etc/nftables.conf\ninclude \"/etc/a\"\ninclude \"/etc/a\"\n", "etc/a\nflush ruleset\n"}, "/etc/a:1"},
		{"a circle", []string{"etc/nftables.conf\ninclude \"/etc/nftables.conf\"\ninclude \"/etc/a\"\n", "etc/a\ninclude \"/etc/nftables.conf\"\nflush ruleset\n"}, "/etc/a:2"},
		{"twice in a file", []string{"etc/nftables.conf\nflush ruleset\nflush ruleset\n"}, "/etc/nftables.conf:1 /etc/nftables.conf:2"},
		{"Alpine's", []string{"etc/nftables.nft\n#!/usr/sbin/nft -f\nflush ruleset\n"}, "/etc/nftables.nft:2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := flushesText(findBootFlushes(tree(tc.files...))); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// locked is a file system in which a file may not be read.
type locked struct {
	fstest.MapFS
	name string
}

func (l locked) ReadFile(name string) ([]byte, error) {
	if name == l.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return l.MapFS.ReadFile(name)
}

func TestBootFileThatCannotBeRead(t *testing.T) {
	root := locked{tree("etc/nftables.conf\n", "etc/sysconfig/nftables.conf\nflush ruleset\n"), "etc/nftables.conf"}
	found := findBootFlushes(root)
	if len(found) != 2 || !errors.Is(found[0].Err, fs.ErrPermission) || found[1].Line != 1 {
		t.Fatalf("found %+v", found)
	}
	w := bootWarnings(found)
	if len(w) != 2 || !strings.Contains(w[0].Text, "/etc/nftables.conf cannot be read (permission denied)") {
		t.Errorf("the warnings are %+v", w)
	}
}

func TestStatementsOfAScript(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"\n\n", nil},
		{"a b\nc", []string{"1: a b", "2: c"}},
		{"a{b}c", []string{"1: a", "1: b", "1: c"}},
		{"a \"b c\" d # e\nf", []string{`1: a "b c" d`, "2: f"}},
		{`a "b`, []string{`1: a "b`}},
		{"\"\n\"\n", []string{`1: "`, `2: "`}},
		{"a \\\n\\\n b;c\\d", []string{"1: a b", "3: c d"}},
		{"# only a comment", nil},
	} {
		var got []string
		for s := range nftStatements(tc.text) {
			got = append(got, fmt.Sprintf("%d: %s", s.line, strings.Join(s.words, " ")))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %q, want %q", tc.text, got, tc.want)
		}
	}
}

func FuzzBootFlushes(f *testing.F) {
	f.Add("flush ruleset")
	f.Add("include \"/etc/*\"\n\"\\\n#")
	f.Fuzz(func(t *testing.T, text string) {
		for _, found := range findBootFlushes(tree("etc/nftables.conf\n" + text)) {
			if found.Line < 1 || found.Line > strings.Count(text, "\n")+1 {
				t.Errorf("line %d of %q", found.Line, text)
			}
		}
	})
}
