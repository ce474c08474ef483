package scenario

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"sgc/policies"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

// base is a scenario without faults. The archives say what is different.
const base = `title = "base"

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "closed" {
  security_group "web" {
    ingress "ssh" {
      protocol    = "tcp"
      ports       = [22]
      cidr_blocks = ["192.0.2.77/32"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

step "one" {
  apply "closed" {}

  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
  }
  wait "1s" {}

  expect "ping" {
    traffic = "refused"
  }
}
`

// TestLoadErrors holds what a load says of faults against goldens. A file of an
// archive is a scenario, or, if it begins with a line "+++", the base with more
// behind it; "NAME.want" is what is said of it.
func TestLoadErrors(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var out []txtar.File
		changed := false
		for _, f := range archive.Files {
			if strings.HasSuffix(f.Name, ".want") {
				continue
			}
			want := ""
			if i := slices.IndexFunc(archive.Files, func(o txtar.File) bool { return o.Name == f.Name+".want" }); i >= 0 {
				want = string(archive.Files[i].Data)
			}
			got := ""
			t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar")+"/"+f.Name, func(t *testing.T) {
				got = diagnose(t, f.Name+Extension, string(f.Data))
				if got != want && !*update {
					t.Errorf("got:\n%s\nwant:\n%s", got, want)
				}
			})
			changed = changed || got != want
			out = append(out, f, txtar.File{Name: f.Name + ".want", Data: []byte(got)})
		}
		if changed && *update {
			archive.Files = out
			if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func diagnose(t *testing.T, name, text string) string {
	t.Helper()
	if more, ok := strings.CutPrefix(text, "+++\n"); ok {
		text = base + more
	}
	l := LoadText(name, []byte(text))
	if (l.Scenario == nil) != l.Report.Diagnostics.HasErrors() {
		t.Errorf("scenario %v, errors %t", l.Scenario, l.Report.Diagnostics.HasErrors())
	}
	var out bytes.Buffer
	if err := policies.WriteDiagnostics(&out, l.Report, 0, false); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLoad(t *testing.T) {
	l := LoadText("base.lab.hcl", []byte(base))
	s := l.Scenario
	if s == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	if s.Title != "base" || s.Speed != 1 || len(s.Hosts) != 2 || s.Managed().Name != "server" || len(s.Networks) != 1 {
		t.Errorf("got %+v", s)
	}
	// Positions in a policy are those of the scenario.
	rule := s.Policies[0].Loaded.Policy.Group("web").Rules[0]
	if rule.Pos.File != "base.lab.hcl" || rule.Pos.Line != 14 || rule.Pos.Column != 5 {
		t.Errorf("the rule stands at %s", rule.Pos)
	}
	f := s.Steps[0].Actions[1].(*Begin).Flow
	if !f.IsPing() || f.Source.String() != "192.0.2.77" || f.Dest.String() != "192.0.2.10" || f.Interval != time.Second || f.Sends != [2]bool{true, false} {
		t.Errorf("got %+v", f)
	}
}

// A policy block may be a file, with values for its variables.
func TestLoadPolicyFile(t *testing.T) {
	dir := t.TempDir()
	policy := `variable "ports" { type = list(number) }
variable "from" { type = string }
security_group "web" {
  ingress "x" {
    protocol    = "tcp"
    ports       = var.ports
    cidr_blocks = [var.from]
  }
}
interface "eth0" { security_groups = [security_group.web] }
`
	if err := os.WriteFile(filepath.Join(dir, "web.hcl"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	text := base + `
locals { office = "203.0.113.${1}/32" }
policy "file" {
  file      = "web.hcl"
  variables = { ports = [80, 443], from = local.office }
}
`
	l := LoadText(filepath.Join(dir, "x.lab.hcl"), []byte(text))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	rule := l.Scenario.Policies[1].Loaded.Policy.Group("web").Rules[0]
	if len(rule.Ports) != 2 || rule.Prefixes[0].String() != "203.0.113.1/32" {
		t.Errorf("got %+v", rule)
	}
}

// A fault of a variable's value stands where the value does.
func TestLoadPolicyFileVariables(t *testing.T) {
	dir := t.TempDir()
	policy := `variable "ports" { type = list(number) }
variable "from" {}
interface "eth0" {}
`
	if err := os.WriteFile(filepath.Join(dir, "web.hcl"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	text := base + `
locals { all = { ports = "many", from = 1 } }
policy "a" {
  file = "web.hcl"
  variables = {
    ports = ["ssh"]
    form  = "192.0.2.0/24"
  }
}
policy "b" {
  file      = "web.hcl"
  variables = local.all
}
policy "c" {
  file      = "web.hcl"
  variables = { ports = [] }
}
`
	l := LoadText(filepath.Join(dir, "x.lab.hcl"), []byte(text))
	var got bytes.Buffer
	if err := policies.WriteDiagnostics(&got, l.Report, 0, false); err != nil {
		t.Fatal(err)
	}
	want := `Error: Variable without a value
  web.hcl:2:10, in variable "from":
    2 | variable "from" {}
      |          ^^^^^^
  Variable "from" has no default. Set it in the scenario's policy block: variables = { from = … }.

Error: Invalid value for a variable
  x.lab.hcl:45:13, in policy "a":
    45 |     ports = ["ssh"]
       |             ^^^^^^^
  The value does not fit the type list(number): [0]: a number is required.

Error: Unknown variable
  x.lab.hcl:46:5, in policy "a":
    46 |     form  = "192.0.2.0/24"
       |     ^^^^
  The policy has no variable "form", which the attribute variables sets. Did you mean "from"?

Error: Invalid value for a variable
  x.lab.hcl:51:15, in policy "b":
    51 |   variables = local.all
       |               ^^^^^^^^^
  The value does not fit the type list(number): list of number required, but have string.
`
	if got := strings.ReplaceAll(got.String(), dir+"/", ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLooksLike(t *testing.T) {
	for _, tt := range []struct {
		text string
		want bool
	}{
		{base, true},
		{"step \"one\" {\n  apply", true}, // however far somebody has come
		{"host {\n  dns_resolvers = []\n}\nsecurity_group \"web\" {}\n", false},
		{"test \"a\" {}\ninterface \"eth0\" {}\n", false},
		{"locals { a = " + strings.Repeat("[", 10_000), false},
		{"{}", false},
		{"", false},
	} {
		file := filepath.Join(t.TempDir(), "x.hcl")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := LooksLike(file); got != tt.want {
			t.Errorf("%t of\n%.100s", got, tt.text)
		}
	}
	if LooksLike(t.TempDir()) {
		t.Error("a directory")
	}
}

// The manual has the limits that the code has.
func TestManualNamesLimits(t *testing.T) {
	text, err := os.ReadFile("../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("a whole number from 1 to %d", MaxSpeed), fmt.Sprintf("`--speed N`, from 1 to %d", MaxSpeed),
		fmt.Sprintf("up to %d days before the speed", maxWait/(24*time.Hour)),
		fmt.Sprintf("%d ms to %d h before the speed", leastInterval/time.Millisecond, mostInterval/time.Hour),
		fmt.Sprintf("bytes of a packet's payload: %d to %d", leastSize, mostSize), fmt.Sprintf("to say that: %d to %d", leastMTU, mostMTU),
		"`flush = \"cloud\"`, `\"revoked\"` or `\"none\"`",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("docs/lab.md does not say %q", want)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b/two.lab.hcl", "a.lab.hcl", "b/policy.hcl", ".git/x.lab.hcl", "b/.hidden.lab.hcl", "c/d/three.lab.hcl"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = strings.TrimPrefix(files[i], dir+"/")
	}
	if want := []string{"a.lab.hcl", "b/two.lab.hcl", "c/d/three.lab.hcl"}; !slices.Equal(files, want) {
		t.Errorf("got %q, want %q", files, want)
	}
	if files, err := Find(filepath.Join(dir, "b/policy.hcl")); err != nil || files != nil {
		t.Errorf("a policy: %q, %v", files, err)
	}
	if _, err := Find(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("what is not there was found")
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"10": 10 * time.Second, "500ms": 500 * time.Millisecond, "1h30m": 90 * time.Minute, "5d": 120 * time.Hour, "1d2h": 26 * time.Hour, "0.5": 500 * time.Millisecond,
	} {
		if d, ok := parseDuration(text); !ok || d != want {
			t.Errorf("%s is %s, %t", text, d, ok)
		}
	}
	for _, text := range []string{"", "x", "-1s", "1d-2h", "-1d", "d", "1dd", "10 s"} {
		if d, ok := parseDuration(text); ok {
			t.Errorf("%q is %s", text, d)
		}
	}
	for d, want := range map[time.Duration]string{
		5 * time.Minute: "5m", 90 * time.Second: "1m30s", time.Hour: "1h", 350 * time.Second: "5m50s", 120 * time.Hour: "5d", time.Millisecond: "1ms", 0: "0s",
	} {
		if got := brief(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

// What would make the parser overflow its stack is refused before.
func TestLoadOfDeepText(t *testing.T) {
	for _, text := range []string{strings.Repeat("[", 10_000), "locals { a = " + strings.Repeat("1 + ", 10_000) + "1 }"} {
		l := LoadText("deep.lab.hcl", []byte(text))
		if d := l.Report.Diagnostics; len(d) != 1 || !strings.HasPrefix(d[0].Summary, "Expression too ") {
			t.Errorf("got %v", d)
		}
	}
}

// No text makes a load panic.
func FuzzLoad(f *testing.F) {
	f.Add(base)
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if !strings.HasSuffix(file.Name, ".want") {
				f.Add(strings.Replace(string(file.Data), "+++\n", base, 1))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "file") {
			return // it would read files of this machine
		}
		l := LoadText("fuzz.lab.hcl", []byte(text))
		if (l.Scenario == nil) != l.Report.Diagnostics.HasErrors() {
			t.Errorf("scenario %v, errors %t", l.Scenario, l.Report.Diagnostics.HasErrors())
		}
	})
}

// What a user may not read may hold scenarios: it is not passed over where there
// are others. Names with a dot are, and so is all that lies beside a policy.
func TestFindWithoutPermission(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.lab.hcl", "closed", ".git"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	visit := func(f *finder, name string, err error) error {
		info, statErr := os.Lstat(filepath.Join(dir, name))
		if statErr != nil {
			t.Fatal(statErr)
		}
		return f.visit(filepath.Join(dir, name), fs.FileInfoToDirEntry(info), err)
	}
	denied := &fs.PathError{Op: "open", Path: "closed", Err: fs.ErrPermission}
	f := &finder{root: dir}
	if err := visit(f, "closed", denied); err != fs.SkipDir {
		t.Errorf("got %v", err)
	}
	if files, err := f.found(); files != nil || err != nil {
		t.Errorf("beside a policy: %q, %v", files, err)
	}
	f.files = []string{"b.lab.hcl"}
	if _, err := f.found(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("beside scenarios: %v", err)
	}
	f = &finder{root: dir, files: []string{"b.lab.hcl"}}
	if err := visit(f, ".git", denied); err != fs.SkipDir {
		t.Errorf("got %v", err)
	}
	if files, err := f.found(); len(files) != 1 || err != nil {
		t.Errorf("what has a dot: %q, %v", files, err)
	}
}
