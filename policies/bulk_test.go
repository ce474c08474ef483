package policies

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// longList is a list that is long enough to be read in bulk, with other text
// for some elements.
func longList(other map[int]string) string {
	var b strings.Builder
	b.WriteString("[ # a comment\n")
	for i := range bulkElements {
		s := other[i]
		if s == "" {
			s = fmt.Sprintf("%q", bigCIDR(i))
		}
		fmt.Fprintf(&b, "    %s, // no. %d\n", s, i)
	}
	b.WriteString("  ]")
	return b.String()
}

// What stands behind a list that was read in bulk has its true position, and
// the list means what it would mean if the parser had read it.
func TestBulkPositionsAndMeaning(t *testing.T) {
	text := "locals { x = 5 }\nprefix_list \"l\" {\n  entries = " + longList(nil) + "\n  description = \"behind\"\n}\nsecurity_group \"g\" {}\n"
	fast := mustLoad(t, text)
	if got, want := fast.Groups[0].Pos.Line, strings.Count(text, "\n"); got != want {
		t.Errorf("the group is at line %d, want %d", got, want)
	}
	if got := len(fast.Lists[0].Entries); got != bulkElements {
		t.Errorf("%d entries, want %d", got, bulkElements)
	}
	// A function call keeps the parser from finding the list at its place.
	slow := mustLoad(t, strings.Replace(strings.Replace(text, "= [", "= concat([", 1), "\n  ]\n", "\n  ])\n", 1))
	if diff := cmp.Diff(slow.Lists[0].Entries, fast.Lists[0].Entries, comparePrefixes); diff != "" {
		t.Errorf("entries differ (-parsed +bulk):\n%s", diff)
	}
}

func TestBulkFaultsHaveTheirPlaces(t *testing.T) {
	for name, ext := range map[string]string{"native": "hcl", "JSON": "hcl.json"} {
		t.Run(name, func(t *testing.T) {
			list := longList(map[int]string{7: `"10.0.0.0"`, 9: `"1.0.0.3/32"`, 11: `"10.1.2.3/8"`})
			text := "prefix_list \"l\" {\n  entries = " + list + "\n  nonsense = 1\n}\n"
			if ext == "hcl.json" {
				list = strings.ReplaceAll(list, "# a comment", "")
				for i := range bulkElements {
					list = strings.Replace(list, fmt.Sprintf("// no. %d\n", i), "\n", 1)
				}
				list = strings.TrimSuffix(list, ", \n  ]") + "\n  ]"
				text = "{\"prefix_list\": {\"l\": {\n  \"entries\":\n" + list + ",\n  \"nonsense\": 1\n}}}\n"
			}
			l := Load(writePolicy(t, map[string][]byte{"a." + ext: []byte(text)}), Inputs{})
			want := []string{
				fmt.Sprintf("%d:5 Invalid CIDR", lineOf(text, `"10.0.0.0"`)),
				fmt.Sprintf("%d:5 CIDR listed twice", lineOf(text, `"1.0.0.3/32"`)+6),
				fmt.Sprintf("%d:5 CIDR with host bits", lineOf(text, `"10.1.2.3/8"`)),
				fmt.Sprintf("%d:3 Unknown argument", lineOf(text, "nonsense")),
			}
			var got []string
			for _, d := range l.Diagnostics {
				got = append(got, fmt.Sprintf("%d:%d %s", d.Subject.Start.Line, d.Subject.Start.Column, d.Summary))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("diagnostics (-want +got):\n%s", diff)
			}
		})
	}
}

// lineOf returns the line of the first occurrence.
func lineOf(text, what string) int {
	before, _, _ := strings.Cut(text, what)
	return strings.Count(before, "\n") + 1
}

// What only looks like a list keeps its meaning.
func TestBulkLooksAlike(t *testing.T) {
	list := longList(nil)
	for name, text := range map[string]string{
		"in a heredoc":        "locals {\n  t = <<EOT\nx = " + list + "\nEOT\n}\nprefix_list \"l\" {\n  entries = [for s in regexall(\"([0-9.]+/32)\", local.t) : s[0]]\n}\n",
		"in a comment":        "/* x = " + list + " */\nprefix_list \"l\" {\n  entries = concat(" + list + ")\n}\n",
		"in a local":          "locals {\n  l = " + list + "\n}\nprefix_list \"l\" {\n  entries = local.l\n}\n",
		"in a default":        "variable \"l\" {\n  default = " + list + "\n}\nprefix_list \"l\" {\n  entries = var.l\n}\n",
		"in an object":        "locals {\n  o = { x = " + list + " }\n}\nprefix_list \"l\" {\n  entries = local.o.x\n}\n",
		"sliced":              "prefix_list \"l\" {\n  entries = " + list + "[*]\n}\n",
		"in a for expression": "prefix_list \"l\" {\n  entries = [for s in " + list + " : s]\n}\n",
		"in a template":       "locals {\n  l = \"${join(\",\", " + list + ")}\"\n}\nprefix_list \"l\" {\n  entries = split(\",\", local.l)\n}\n",
		"in for_each":         "security_group \"g\" {\n  dynamic \"egress\" {\n    for_each = " + list + "\n    content {\n      protocol = \"-1\"\n      cidr_blocks = [egress.value]\n    }\n  }\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := mustLoad(t, text)
			n := 0
			for _, l := range p.Lists {
				n += len(l.Entries)
			}
			for _, g := range p.Groups {
				n += len(g.Rules)
			}
			if n != bulkElements {
				t.Errorf("%d elements, want %d", n, bulkElements)
			}
		})
	}
}

// JSON that the parser refuses is refused in a long list too.
func TestBulkJSONIsStrict(t *testing.T) {
	var elements []string
	for i := range bulkElements {
		elements = append(elements, fmt.Sprintf("%q", bigCIDR(i)))
	}
	for name, list := range map[string]string{
		"a comma at the end": "[" + strings.Join(elements, ",") + ",]",
		"a comment":          "[ # comment\n" + strings.Join(elements, ",") + "]",
		"no commas":          "[" + strings.Join(elements, " ") + "]",
	} {
		text := `{"prefix_list": {"l": {"entries": ` + list + `}}}`
		if l := Load(writePolicy(t, map[string][]byte{"a.hcl.json": []byte(text)}), Inputs{}); l.Policy != nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A list with a thousand faults does not bury the reader.
func TestBulkFaultsAreCounted(t *testing.T) {
	other := map[int]string{}
	for i := range mostFaults + 20 {
		other[i] = `"nonsense"`
	}
	l := loadText(t, "prefix_list \"l\" {\n  entries = "+longList(other)+"\n}\n")
	if got := len(l.Diagnostics); got != mostFaults+1 {
		t.Fatalf("%d diagnostics, want %d", got, mostFaults+1)
	}
	found := false
	for _, d := range l.Diagnostics {
		found = found || strings.Contains(d.Detail, "20 further errors")
	}
	if !found {
		t.Error("nobody says that there are 20 further errors")
	}
}
