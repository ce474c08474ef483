package policies

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/tools/txtar"
)

// FuzzLoad loads text as a policy file. A load never panics; it has a policy or
// an error; two loads agree; diagnostics can be written; and a policy is well
// formed.
func FuzzLoad(f *testing.F) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if ext := filepath.Ext(file.Name); ext == ".hcl" || ext == ".json" && file.Name != "policy.json" {
				f.Add(file.Data, ext == ".json")
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, json bool) {
		// Functions that build values can be told to build enormous ones.
		for _, grows := range []string{"format", "setproduct", "pow", "range", "indent", "file", "%"} {
			if bytes.Contains(text, []byte(grows)) {
				t.Skip()
			}
		}
		name := "a.hcl"
		if json {
			name = "a.hcl.json"
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		l := Load(path, Inputs{})
		if (l.Policy == nil) != l.Diagnostics.HasErrors() {
			t.Errorf("policy %v, diagnostics %v", l.Policy, l.Diagnostics)
		}
		if err := WriteDiagnostics(io.Discard, l, 80, true); err != nil {
			t.Error(err)
		}
		for _, d := range l.Diagnostics {
			if d.Subject == nil || d.Subject.Start.Line < 1 {
				t.Errorf("no place: %v", d)
			}
		}
		if l.Policy != nil {
			checkPolicy(t, l.Policy)
			if !reflect.DeepEqual(l.Policy, Load(path, Inputs{}).Policy) {
				t.Error("two loads differ")
			}
		}
		out, diags := Format(text, name)
		if diags.HasErrors() {
			return
		}
		again, diags := Format(out, name)
		if diags.HasErrors() || !bytes.Equal(again, out) {
			t.Errorf("formatting again changes\n%q into\n%q", out, again)
		}
	})
}

// checkPolicy holds a policy against what its types promise.
func checkPolicy(t *testing.T, p *Policy) {
	t.Helper()
	for _, g := range p.Groups {
		if nameProblem(g.Name) != "" {
			t.Errorf("group %q", g.Name)
		}
		ids := map[string]bool{}
		for _, r := range g.Rules {
			if nameProblem(r.ID) != "" || ids[r.Address()] {
				t.Errorf("rule %q is ill named or twice there", r.Address())
			}
			ids[r.Address()] = true
			if len(r.Prefixes)+len(r.Lists)+len(r.Groups) == 0 {
				t.Errorf("rule %q without a peer", r.Address())
			}
			if ports := !r.AllProtocols && r.Protocol.HasPorts(); ports != (len(r.Ports) > 0) {
				t.Errorf("rule %q has the ports %v", r.Address(), r.Ports)
			}
			for i, pr := range r.Ports {
				if pr.First > pr.Last || i > 0 && int(r.Ports[i-1].Last)+1 >= int(pr.First) {
					t.Errorf("rule %q has the ports %v", r.Address(), r.Ports)
				}
			}
			for i, pr := range r.Prefixes {
				if !pr.IsValid() || pr != pr.Masked() || pr.Addr().Is4In6() || i > 0 && r.Prefixes[i-1].Compare(pr) >= 0 {
					t.Errorf("rule %q has the prefixes %v", r.Address(), r.Prefixes)
				}
			}
			for _, name := range r.Groups {
				if p.Group(name) == nil {
					t.Errorf("rule %q refers to the group %q", r.Address(), name)
				}
			}
			for _, name := range r.Lists {
				if p.List(name) == nil {
					t.Errorf("rule %q refers to the list %q", r.Address(), name)
				}
			}
		}
	}
	for _, i := range p.Interfaces {
		if interfaceProblem(i.Name, true) != "" || i.Name == Loopback || i.ACL != "" && p.ACL(i.ACL) == nil {
			t.Errorf("interface %q with ACL %q", i.Name, i.ACL)
		}
		for _, a := range i.AlwaysTrack {
			if len(a.Prefixes) == 0 {
				t.Errorf("always_track %q without peers", a.ID)
			}
		}
	}
	for _, a := range p.ACLs {
		for _, e := range a.Entries {
			if !e.Prefix.IsValid() || e.Number < minRuleNumber || e.Number > maxRuleNumber || e.Ports.First > e.Ports.Last {
				t.Errorf("entry %+v", e)
			}
		}
	}
	for _, test := range p.Tests {
		if test.Packet.Source.Is4() != test.Packet.Dest.Is4() || !test.Packet.Source.IsValid() || !test.Packet.Dest.IsValid() {
			t.Errorf("test %q from %s to %s", test.Name, test.Packet.Source, test.Packet.Dest)
		}
	}
}
