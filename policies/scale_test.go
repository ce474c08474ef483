package policies

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

// manyRules is a policy with n rules in groups of 100.
func manyRules(n int) []byte {
	var b bytes.Buffer
	for g := 0; g*100 < n; g++ {
		fmt.Fprintf(&b, "security_group \"g%d\" {\n", g)
		for i := range 100 {
			fmt.Fprintf(&b, `  ingress "r%d" {
    description = "rule %d"
    protocol    = "tcp"
    from_port   = %d
    to_port     = %d
    cidr_blocks = ["10.%d.%d.0/24", "192.0.2.%d/32"]
  }
`, i, i, 1000+i, 1000+i, g%256, i, i)
		}
		fmt.Fprintf(&b, "}\n")
	}
	return b.Bytes()
}

func bigCIDR(i int) string {
	return fmt.Sprintf("%d.%d.%d.%d/32", 1+i>>24, i>>16&255, i>>8&255, i&255)
}

// writePolicy writes a directory of files and returns it.
func writePolicy(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func benchmarkLoad(b *testing.B, files map[string][]byte, check func(*Policy) error) {
	dir := writePolicy(b, files)
	b.ReportAllocs()
	for b.Loop() {
		l := Load(dir, Inputs{})
		if l.Policy == nil {
			b.Fatal(l.Diagnostics)
		}
		if err := check(l.Policy); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadRules10k(b *testing.B) {
	benchmarkLoad(b, map[string][]byte{"a.hcl": manyRules(10_000)}, func(p *Policy) error {
		n := 0
		for _, g := range p.Groups {
			n += len(g.Rules)
		}
		if n != 10_000 {
			return fmt.Errorf("%d rules", n)
		}
		return nil
	})
}

func millionEntries(p *Policy) error {
	if n := len(p.Lists[0].Entries); n != 1_000_000 {
		return fmt.Errorf("%d entries", n)
	}
	return nil
}

func BenchmarkLoadMillionByFile(b *testing.B) {
	var list bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintln(&list, bigCIDR(i*7919%(1<<24)))
	}
	benchmarkLoad(b, map[string][]byte{
		"a.hcl":    []byte("prefix_list \"l\" {\n  file = \"list.txt\"\n}\n"),
		"list.txt": list.Bytes(),
	}, millionEntries)
}

func BenchmarkLoadMillionInline(b *testing.B) {
	var text bytes.Buffer
	text.WriteString("prefix_list \"l\" {\n  entries = [\n")
	for i := range 1_000_000 {
		fmt.Fprintf(&text, "    %q,\n", bigCIDR(i*7919%(1<<24)))
	}
	text.WriteString("  ]\n}\n")
	benchmarkLoad(b, map[string][]byte{"a.hcl": text.Bytes()}, millionEntries)
}

func BenchmarkLoadMillionInJSON(b *testing.B) {
	var text bytes.Buffer
	text.WriteString(`{"prefix_list": {"l": {"entries": [`)
	for i := range 1_000_000 {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, "%q\n", bigCIDR(i*7919%(1<<24)))
	}
	text.WriteString("]}}}")
	benchmarkLoad(b, map[string][]byte{"a.hcl.json": text.Bytes()}, millionEntries)
}

// cty compares the types of all elements of a tuple with each other when it
// converts it, so long ones must be lists before they get there.
func TestLongListsAreNoTuples(t *testing.T) {
	src := &source{name: "a.hcl", text: []byte("x = " + longList(nil))}
	for _, l := range findBulk(src).lists {
		if v, _ := l.Value(nil); !v.Type().IsListType() {
			t.Errorf("a list that was read in bulk is a %s", v.Type().FriendlyName())
		}
	}
	tuple := cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.StringVal("b")})
	if got := uniform(tuple); !got.Type().IsListType() {
		t.Errorf("two strings are a %s", got.Type().FriendlyName())
	}
	for _, v := range []cty.Value{
		cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.True}), cty.EmptyTupleVal, cty.DynamicVal, cty.StringVal("a"),
		cty.NullVal(tuple.Type()), cty.TupleVal([]cty.Value{cty.NullVal(cty.DynamicPseudoType), cty.StringVal("a")}),
	} {
		if got := uniform(v); !got.RawEquals(v) {
			t.Errorf("%#v becomes %#v", v, got)
		}
	}
}

// Long lists reach the policy from wherever a variable has its value.
func TestLongListsInVariables(t *testing.T) {
	const n = 5_000
	var list bytes.Buffer
	list.WriteString("[")
	for i := range n {
		fmt.Fprintf(&list, "%q,\n", bigCIDR(i))
	}
	inJSON := []byte(`{"l": ` + strings.TrimSuffix(list.String(), ",\n") + "]}")
	list.WriteString("]")
	const declared = "variable \"l\" {\n  type = list(string)\n}\nprefix_list \"a\" {\n  entries = var.l\n}\n"
	for name, c := range map[string]struct {
		files  map[string][]byte
		values func(dir string) Inputs
	}{
		"default": {map[string][]byte{"a.hcl": []byte(strings.Replace(declared, "list(string)\n", "set(string)\n  default = "+list.String()+"\n", 1))},
			func(string) Inputs { return Inputs{} }},
		"file": {map[string][]byte{"a.hcl": []byte(declared), "v.tfvars": append([]byte("l = "), list.Bytes()...)},
			func(dir string) Inputs { return Inputs{Files: []string{filepath.Join(dir, "v.tfvars")}} }},
		"JSON file": {map[string][]byte{"a.hcl": []byte(declared), "v.json": inJSON},
			func(dir string) Inputs { return Inputs{Files: []string{filepath.Join(dir, "v.json")}} }},
		"local": {map[string][]byte{"a.hcl": []byte("locals {\n  l = " + list.String() + "\n  m = toset(local.l)\n}\nprefix_list \"a\" {\n  entries = [for s in local.m : s]\n}\n")},
			func(string) Inputs { return Inputs{} }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writePolicy(t, c.files)
			l := Load(dir, c.values(dir))
			if l.Policy == nil {
				t.Fatal(l.Diagnostics)
			}
			if got := len(l.Policy.Lists[0].Entries); got != n {
				t.Errorf("%d entries, want %d", got, n)
			}
		})
	}
}
