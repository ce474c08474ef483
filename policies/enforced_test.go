package policies

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	want := []string{"the timeouts of always_track", "connection_tracking", "host.conntrack", "test blocks"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

// Of an always_track block, its own timeouts alone are refused, by name.
func TestAlwaysTrackIsEnforced(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "tcp_established_timeout = 350": "Remove tcp_established_timeout from",
		"udp_stream_timeout = 120":                                 "Remove udp_stream_timeout from",
		"tcp_established_timeout = 350\n udp_stream_timeout = 120": "Remove tcp_established_timeout and udp_stream_timeout from",
	} {
		p := mustLoad(t, "interface \"eth0\" {\n security_groups = []\n always_track {\n cidr_blocks = [\"10.0.0.0/8\"]\n"+text+"\n}\n}\n")
		diags := NotEnforced(p)
		switch {
		case want == "" && len(diags) == 0:
		case want == "" || len(diags) != 1 || !strings.Contains(diags[0].Detail, want):
			t.Errorf("%q: %v, want %q", text, diags, want)
		}
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
		diags := NotEnforced(l.Policy)
		l.Add(diags[1], diags[0])
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
