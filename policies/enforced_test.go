package policies

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
)

func TestNotEnforced(t *testing.T) {
	p := specPolicy(t)
	var got []string
	for _, d := range NotEnforced(p) {
		if d.Subject == nil || d.Subject.Start.Line == 0 {
			t.Errorf("no place: %s", d.Detail)
		}
		_, what, _ := strings.Cut(d.Detail, " reads ")
		what, _, _ = strings.Cut(what, ",")
		got = append(got, what)
	}
	want := []string{"test blocks"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

// What is added to a load points to the headers of blocks, in either syntax,
// and stands in its place among the rest.
func TestAddedDiagnosticsPointToHeaders(t *testing.T) {
	for name, files := range map[string]map[string][]byte{
		"native": {"a.hcl": []byte("# é\n  interface \"eth0\" {\n\tconnection_tracking {}\n\tsecurity_groups = []\n}\ntest \"y\" {\ninterface = \"eth0\"\n direction = \"ingress\"\n protocol = \"tcp\"\n port = 22\n source = \"192.0.2.1\"\n expect = \"drop\"\n}\n")},
		"JSON":   {"a.hcl.json": []byte(`{"interface": {"eth0": {"connection_tracking": {}, "security_groups": []}}, "test": {"y": {"interface": "eth0", "direction": "ingress", "protocol": "tcp", "port": 22, "source": "192.0.2.1", "expect": "drop"}}}`)},
	} {
		l := Load(writePolicy(t, files), Inputs{})
		if l.Policy == nil {
			t.Fatal(l.Diagnostics)
		}
		l.Add(NotEnforced(l.Policy)[0], &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "Another", Subject: l.Policy.Interfaces[0].Pos.Range()})
		var got []string
		for _, d := range l.Diagnostics {
			r := *d.Subject
			got = append(got, string(l.Files[r.Filename].Bytes[r.Start.Byte:r.End.Byte]))
		}
		want := []string{`interface "eth0"`, `test "y"`}
		if name == "JSON" {
			want = []string{`"eth0"`, `"y"`}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
