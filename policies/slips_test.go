package policies

import (
	"fmt"
	"strings"
	"testing"
)

// One slip is one diagnostic.
func TestSlips(t *testing.T) {
	rule := func(text string) string {
		return "security_group \"web\" {\n  ingress \"a\" {\n" + text + "\n    cidr_blocks = [\"192.0.2.0/24\"]\n  }\n}\ninterface \"eth0\" {\n  security_groups = [security_group.web]\n}\n"
	}
	tcp := func(text string) string { return rule("    protocol = \"tcp\"\n" + text) }
	for name, tc := range map[string]struct{ text, says string }{
		"an octal port":                {tcp(`ports = ["022"]`), "zeros"},
		"a port with blanks":           {tcp(`ports = [" 22"]`), "A port is a number"},
		"a range with zeros":           {tcp(`ports = ["08-9"]`), "range"},
		"a signed protocol":            {rule("    protocol = \"+6\"\n    ports = [22]"), "without a sign"},
		"a misspelt end of a range":    {tcp("from_prt = 22\n to_port = 22"), "from_port"},
		"exchanged letters":            {rule("    protocol = \"imcp\""), `Did you mean "icmp"?`},
		"a name that cannot be a name": {strings.ReplaceAll(tcp("ports = [22]"), "\"web\"", "\"1web\"") + "\ninterface \"eth1\" {\n  security_groups = [security_group[\"1web\"]]\n}\n", "cannot be a name"},
	} {
		text := strings.ReplaceAll(tc.text, "security_group.web]", `security_group["web"]]`)
		if strings.Contains(text, "1web") {
			text = strings.ReplaceAll(text, `["web"]`, `["1web"]`)
		}
		l := loadNamed(t, "p.hcl", text, Inputs{})
		if len(l.Diagnostics) != 1 || !strings.Contains(l.Diagnostics[0].Detail, tc.says) {
			t.Errorf("%s: %v", name, l.Diagnostics)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"tcp", "tcp", 0}, {"imcp", "icmp", 1}, {"tpc", "tcp", 1}, {"imcp", "tcp", 2}, {"", "ab", 2}, {"kitten", "sitting", 3}} {
		if got, back := distance(tc.a, tc.b), distance(tc.b, tc.a); got != tc.want || back != tc.want {
			t.Errorf("%q and %q: %d and %d, want %d", tc.a, tc.b, got, back, tc.want)
		}
	}
}

func TestManyErrorsAreCut(t *testing.T) {
	var text strings.Builder
	text.WriteString("locals {\n")
	for i := range 130 {
		fmt.Fprintf(&text, "  a%d = nothing.x%d\n", i, i)
	}
	l := loadNamed(t, "p.hcl", text.String()+"}\n", Inputs{})
	var out strings.Builder
	if err := WriteDiagnostics(&out, l, 0, false); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "Error:"); got != 100 || !strings.HasSuffix(out.String(), "\n30 errors more.\n") {
		t.Errorf("%d errors, at the end %q", got, out.String()[max(0, out.Len()-60):])
	}
}
