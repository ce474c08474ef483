package policies

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"sgc/internal/flow"
)

// fence is a fenced block of a Markdown file, or a line of a table.
type fence struct {
	// info is what stands behind the three backquotes, "|" for a line of a
	// table.
	info, text string
	// line is that of the first line of the text.
	line int
}

// fencesOf returns the fenced blocks and the lines of tables in a Markdown
// file, in order.
func fencesOf(markdown string) []fence {
	var out []fence
	inside := false
	for i, line := range strings.Split(markdown, "\n") {
		info, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !inside:
			inside = true
			out = append(out, fence{info: info, line: i + 2})
		case isFence:
			inside = false
		case inside:
			out[len(out)-1].text += line + "\n"
		case strings.HasPrefix(line, "|"):
			out = append(out, fence{info: "|", text: line, line: i + 1})
		}
	}
	return out
}

// manuals returns the Markdown files for users by name. README.md belongs to
// them.
func manuals(t *testing.T) map[string][]fence {
	t.Helper()
	out := map[string][]fence{}
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = fencesOf(string(text))
		}
	}
	for _, name := range []string{"language.md", "meaning.md", "plan.md"} {
		if out["../docs/"+name] == nil {
			t.Errorf("docs/%s is missing, or holds no blocks", name)
		}
	}
	return out
}

// isWhole reports whether an hcl block is a complete policy: it attaches
// something. All others are parts of one.
func isWhole(text string) bool { return regexp.MustCompile(`(?m)^interface "`).MatchString(text) }

// loadExample loads the text of a block beside the files of the document:
// blocks of the form "text NAME".
func loadExample(t *testing.T, all []fence, name, text string) *Loaded {
	t.Helper()
	files := map[string][]byte{name: []byte(text)}
	for _, f := range all {
		if file, ok := strings.CutPrefix(f.info, "text "); ok {
			files[file] = []byte(f.text)
		}
	}
	return Load(writePolicy(t, files), Inputs{})
}

// What the manual shows as a policy is one, without a warning and in canonical
// layout; what it shows as a part of one is right but for names that stand
// elsewhere.
func TestManualPolicies(t *testing.T) {
	whole := map[string]int{}
	for name, all := range manuals(t) {
		for _, f := range all {
			at := fmt.Sprintf("%s:%d", name, f.line)
			file := map[string]string{"hcl": "policy.hcl", "json": "policy.hcl.json"}[f.info]
			switch {
			case file == "", f.info == "json" && !strings.Contains(f.text, `"security_group": {`):
				continue
			case f.info == "hcl" && !isWhole(f.text):
				checkPart(t, at, f.text)
				continue
			}
			whole[name]++
			l := loadExample(t, all, file, f.text)
			if len(l.Diagnostics) > 0 {
				var out bytes.Buffer
				if err := WriteDiagnostics(&out, l, 0, false); err != nil {
					t.Fatal(err)
				}
				t.Errorf("%s: diagnostics:\n%s", at, out.String())
			}
			if l.Policy != nil {
				for _, d := range NotEnforced(l.Policy) {
					t.Errorf("%s: %s", at, d.Detail)
				}
			}
			if f.info == "hcl" && strings.HasPrefix(name, "../docs/") {
				if out, diags := Format([]byte(f.text), file); diags.HasErrors() || string(out) != f.text {
					t.Errorf("%s: not in canonical layout, which is\n%s", at, out)
				}
			}
		}
	}
	for _, name := range []string{"../docs/language.md", "../docs/meaning.md"} {
		if whole[name] < 3 {
			t.Errorf("%s shows %d whole policies: are they found?", name, whole[name])
		}
	}
}

// checkPart checks a part of a policy: it parses, and loads but for names.
func checkPart(t *testing.T, at, text string) {
	t.Helper()
	if _, diags := hclsyntax.ParseConfig([]byte(text), at, hcl.InitialPos); diags.HasErrors() {
		t.Errorf("%s: %v", at, diags)
	}
	elsewhere := []string{"Unknown security group", "Unknown prefix list", "Unknown network ACL", "Unknown variable", "Unknown local value"}
	for _, d := range loadText(t, text).Diagnostics {
		if d.Severity == hcl.DiagError && !slices.Contains(elsewhere, d.Summary) {
			t.Errorf("%s: %s: %s", at, d.Summary, d.Detail)
		}
	}
}

// packetLine is a line of a table of packets, such as
//
//	| in tcp 203.0.113.1:40000 → 192.0.2.10:22, established | allow, tracked | why |
//	| out icmp type 8 192.0.2.10 → 203.0.113.1 | drop | why |
//
// The interface is eth0 unless "on NAME" stands before. TCP is a SYN unless the
// line says otherwise.
var packetLine = regexp.MustCompile(`^\| (?:on (\S+) )?(in|out) (\S+) (?:type (\d+) )?(\S+) → ([^\s,]+)(?:, (established|related|invalid|without SYN))? \| (allow|drop)(?:, (\w+))? \|`)

// The packets that the manual says to pass or not, under the policy shown
// above them, do.
func TestManualPackets(t *testing.T) {
	checked := 0
	for name, all := range manuals(t) {
		var judge *Judge
		packets := false // inside of a table of packets
		for i, f := range all {
			switch {
			case f.info == "hcl" && isWhole(f.text):
				if l := loadExample(t, all, "policy.hcl", f.text); l.Policy != nil {
					judge = NewJudge(l.Policy)
				}
			case strings.HasPrefix(f.text, "| packet |"):
				packets = true
				if judge == nil {
					t.Fatalf("%s:%d: no policy stands before the packets", name, f.line)
				}
			case f.info != "|" || all[i-1].line != f.line-1 || !packets:
				packets = false
			case strings.HasPrefix(f.text, "|---"):
			default:
				m := packetLine.FindStringSubmatch(f.text)
				if m == nil {
					t.Errorf("%s:%d: is this a packet? %s", name, f.line, f.text)
					continue
				}
				checked++
				got := judge.Decide(packetOf(t, m))
				want := Decision{Allow: m[8] == "allow"}
				if got.Allow != want.Allow || m[9] != "" && got.Class.String() != m[9] {
					t.Errorf("%s:%d: %s\ngot %v %v: %s", name, f.line, f.text, got.Allow, got.Class, got.Reason)
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d packets in the manual: are they found?", checked)
	}
}

// packetOf makes the packet of a line that packetLine has taken apart.
func packetOf(t *testing.T, m []string) *flow.Packet {
	t.Helper()
	p := &flow.Packet{Interface: "eth0", HopLimit: 64}
	if m[1] != "" {
		p.Interface = m[1]
	}
	if m[2] == "out" {
		p.Direction = flow.Egress
	}
	var err error
	if p.Protocol, err = flow.ParseProtocol(m[3]); err != nil {
		t.Fatal(err)
	}
	if m[4] != "" {
		n, err := strconv.ParseUint(m[4], 10, 8)
		if err != nil {
			t.Fatal(err)
		}
		p.ICMPType = uint8(n)
	}
	p.State = map[string]flow.State{"": flow.New, "established": flow.Established, "related": flow.Related, "invalid": flow.Invalid}[m[7]]
	if p.Protocol == flow.TCP {
		p.TCPFlags = flow.SYN
		if m[7] != "" {
			p.TCPFlags = flow.ACK
		}
	}
	end := func(text string) (netip.Addr, uint16) {
		if !p.Protocol.HasPorts() {
			a, err := netip.ParseAddr(text)
			if err != nil {
				t.Fatal(err)
			}
			return a, 0
		}
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			t.Fatal(err)
		}
		return a.Addr(), a.Port()
	}
	p.Source, p.SourcePort = end(m[5])
	p.Dest, p.DestPort = end(m[6])
	return p
}

// Links within the repository lead to a file, and to a heading of it.
func TestManualLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s#]*)(?:#([^)\s]+))?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	// As GitHub makes them.
	anchor := func(title string) string {
		title = regexp.MustCompile(`[^\w\s-]`).ReplaceAllString(strings.ToLower(title), "")
		return strings.ReplaceAll(title, " ", "-")
	}
	for name := range manuals(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target := name
			if strings.Contains(m[1], "://") {
				continue
			}
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(name), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link to %s: %v", name, m[1], err)
				continue
			}
			if m[2] == "" {
				continue
			}
			there, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(string(there), -1), func(h []string) bool { return anchor(h[1]) == m[2] }) {
				t.Errorf("%s: %s has no heading #%s", name, target, m[2])
			}
		}
	}
}

// The manual lists every function, and every block and attribute in code.
func TestManualIsComplete(t *testing.T) {
	raw, err := os.ReadFile("../docs/language.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	functions := text[strings.Index(text, "## Functions"):strings.Index(text, "## Names")]
	for name := range newLoader(Inputs{}).functions() {
		if !strings.Contains(functions, "`"+name+"`") {
			t.Errorf("the function %s is missing", name)
		}
	}
	var visit func(s *schema)
	visit = func(s *schema) {
		for _, name := range s.attributes {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("the argument %s of %s is missing", name, s.kind)
			}
		}
		for _, b := range s.blocks {
			if !regexp.MustCompile("[`*]" + b.kind + "[` *]").MatchString(text) {
				t.Errorf("the block %s of %s is missing", b.kind, s.kind)
			}
			visit(b)
		}
	}
	visit(rootSchema)
}
