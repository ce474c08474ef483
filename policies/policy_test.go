package policies

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var comparePrefixes = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// specPolicy loads the example of the contract.
func specPolicy(t *testing.T) *Policy {
	t.Helper()
	path, err := filepath.Abs("testdata/spec.txtar")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return loadArchive(t, archive).Policy
}

func TestTwoLoadsAreDeeplyEqual(t *testing.T) {
	a := specPolicy(t)
	for range 5 {
		if b := Load(".", Inputs{}).Policy; !reflect.DeepEqual(a, b) {
			t.Fatalf("a second load differs:\n%s", cmp.Diff(a, b, comparePrefixes))
		}
	}
}

func TestPolicyGoesThroughJSON(t *testing.T) {
	a := specPolicy(t)
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	b := new(Policy)
	if err := json.Unmarshal(text, b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("JSON loses something:\n%s", cmp.Diff(a, b, comparePrefixes))
	}
	if a.Digest() != b.Digest() {
		t.Error("JSON changes the digest")
	}
}

// The policy is the same however it is cut into files, and in whatever order
// blocks, rules and CIDRs stand, except for where things stand.
func TestOrderDoesNotMatter(t *testing.T) {
	group := "security_group \"g\" {\n%\n}\n"
	ssh := "  ingress \"ssh\" {\n    protocol = \"tcp\"\n    ports = [22, 23, 80]\n    cidr_blocks = [\"10.0.0.0/8\", \"192.0.2.0/24\"]\n    ipv6_cidr_blocks = [\"::/0\"]\n    security_groups = [\"h\", \"g\"]\n  }\n"
	sshOther := "  ingress \"ssh\" {\n    ipv6_cidr_blocks = [\"::/0\"]\n    security_groups = [security_group.h]\n    self = true\n    cidr_blocks = [\"192.0.2.0/24\", \"10.0.0.0/8\"]\n    from_port = null\n    ports = [80, \"22-23\"]\n    protocol = 6\n  }\n"
	all := "  egress {\n    protocol = \"-1\"\n    cidr_blocks = [\"0.0.0.0/0\"]\n  }\n"
	h := "security_group \"h\" {\n  members = [local.b, \"192.0.2.1\"]\n}\n"
	locals := "locals {\n  a = \"192.0.2.\"\n  b = \"${local.a}2\"\n}\n"
	localsOther := "locals {\n  b = \"${local.a}2\"\n  a = \"192.0.2.\"\n}\n"
	eth := "interface \"eth0\" {\n  security_groups = [\"g\", \"h\"]\n}\n"
	ethOther := "interface \"eth0\" {\n  security_groups = [security_group.h, security_group.g]\n}\n"
	g := strings.Replace(group, "%", ssh+all, 1)
	gOther := strings.Replace(group, "%", all+sshOther, 1)

	var want string
	for name, files := range map[string]map[string][]byte{
		"one file":       {"a.hcl": []byte(g + h + locals + eth)},
		"the other way":  {"a.hcl": []byte(ethOther + localsOther + h + gOther)},
		"a file a block": {"d.hcl": []byte(g), "c.hcl": []byte(h), "b.hcl": []byte(locals), "a.hcl": []byte(eth)},
	} {
		l := Load(writePolicy(t, files), Inputs{})
		if l.Policy == nil {
			t.Fatalf("%s: %v", name, l.Diagnostics)
		}
		digest := l.Policy.Digest()
		if want == "" {
			want = digest
		}
		if digest != want {
			t.Errorf("%s has another digest", name)
		}
	}
}

// Every change of meaning changes the digest; a change of words does not.
func TestDigest(t *testing.T) {
	const base = `
security_group "g" {
  description = "d"
  ingress "a" {
    description = "d"
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["10.0.0.0/8"]
  }
}
prefix_list "l" {
  entries = ["10.0.0.0/8"]
}
network_acl "n" {
  ingress {
    rule_no    = 1
    action     = "allow"
    protocol   = "-1"
    cidr_block = "10.0.0.0/8"
  }
}
interface "eth0" {
  security_groups = ["g"]
  notrack         = "auto"
  always_track "t" {
    cidr_blocks = ["10.0.0.0/8"]
  }
  log_denied {
    rate = "1/second"
  }
}
host {
  exempt = ["10.0.0.1"]
  conntrack {
    max = 5
  }
}
test "t" {
  interface = "eth0"
  direction = "ingress"
  protocol  = "gre"
  source    = "10.0.0.1"
  expect    = "allow"
}
`
	want := mustLoad(t, base).Digest()
	for _, c := range []struct {
		old, new string
		same     bool
	}{
		{"\n", "\n\n", true},
		{`"d"`, `"other words"`, true},
		{`test "t"`, `test "u"`, true},
		{`expect    = "allow"`, `expect = "drop"`, true},
		{`ports       = [22]`, `ports = [23]`, false},
		{`ingress "a"`, `ingress "b"`, false},
		{`ingress "a"`, `egress "a"`, false},
		{`cidr_blocks = ["10.0.0.0/8"]`, `cidr_blocks = ["10.0.0.0/9"]`, false},
		{`entries = ["10.0.0.0/8"]`, `entries = []`, false},
		{`rule_no    = 1`, `rule_no = 2`, false},
		{`action     = "allow"`, `action = "deny"`, false},
		{`"auto"`, `"off"`, false},
		{`always_track "t"`, `always_track "u"`, false},
		{`"1/second"`, `"1/minute"`, false},
		{`exempt = `, `dns_resolvers = `, false},
		{`max = 5`, `max = 6`, false},
		{`interface "eth0" {`, `interface "eth1" {`, false},
	} {
		got := mustLoad(t, strings.ReplaceAll(base, c.old, c.new)).Digest()
		if (got == want) != c.same {
			t.Errorf("%q → %q: digest equal is %v, want %v", c.old, c.new, got == want, c.same)
		}
	}
	if a, b := (&Policy{Groups: []*Group{{Name: "x"}}}), (&Policy{Lists: []*PrefixList{{Name: "x"}}}); a.Digest() == b.Digest() {
		t.Error("an empty group and an empty list of one name have the same digest")
	}
}

func TestRuleIDs(t *testing.T) {
	p := mustLoad(t, `
security_group "g" {
  dynamic "ingress" {
    for_each = [
      ["tcp", [22], "10.1.0.0/16"],
      ["tcp", [22], "10.2.0.0/16"],
      ["tcp", [80, "8000-8099", 81], "10.1.0.0/16"],
      ["tcp", ["0-65535"], "10.1.0.0/16"],
      ["udp", range(1, 200, 2), "10.1.0.0/16"],
      ["-1", null, "10.1.0.0/16"],
      ["gre", null, "10.1.0.0/16"],
      [200, null, "10.1.0.0/16"],
      ["3pc", null, "10.1.0.0/16"],
      ["a/n", null, "10.1.0.0/16"],
      ["tcp", [25], "10.1.0.0/16"],
    ]
    content {
      protocol    = ingress.value[0]
      ports       = ingress.value[1]
      cidr_blocks = [ingress.value[2]]
    }
  }
  ingress {
    protocol    = "icmp"
    cidr_blocks = ["10.1.0.0/16"]
  }
  ingress {
    protocol    = "icmp"
    from_port   = 3
    to_port     = 4
    cidr_blocks = ["10.1.0.0/16"]
  }
  ingress "tcp-25" {
    protocol    = "tcp"
    ports       = [26]
    cidr_blocks = ["10.1.0.0/16"]
  }
  egress {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["10.1.0.0/16"]
  }
}
`)
	var got []string
	for _, r := range p.Groups[0].Rules {
		got = append(got, r.Direction.String()+" "+r.ID)
		if problem := nameProblem(r.ID); problem != "" {
			t.Error(problem)
		}
	}
	want := []string{
		"ingress all", "ingress gre", "ingress icmp", "ingress icmp-3-4", "ingress protocol-107", "ingress protocol-200",
		"ingress protocol-34", "ingress tcp-0-65535", "ingress tcp-22", "ingress tcp-22-2", "ingress tcp-25", "ingress tcp-25-2",
		"ingress tcp-80-81_8000-8099", "ingress udp-1_3_5_7_9_11_13_15_17_19_21_23_25_27_29_and-85-more", "egress tcp-22",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("IDs (-want +got):\n%s", diff)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`350`: 350 * time.Second, `"350"`: 350 * time.Second, `"350s"`: 350 * time.Second, `"6m"`: 6 * time.Minute,
		`"1h30m"`: 90 * time.Minute, `"5d"`: 5 * day, `"1d1h1m1s"`: 25*time.Hour + time.Minute + time.Second, `60`: time.Minute,
	} {
		l := loadText(t, "interface \"eth0\" {\n  connection_tracking {\n    tcp_established_timeout = "+text+"\n  }\n}\n")
		if l.Policy == nil {
			t.Errorf("%s: %v", text, l.Diagnostics)
			continue
		}
		if got := *l.Policy.Interfaces[0].Timeouts; got != (Timeouts{want, DefaultTimeouts.UDP, DefaultTimeouts.UDPStream}) {
			t.Errorf("%s is %v", text, got)
		}
	}
	for _, text := range []string{`""`, `"s"`, `"1s1m"`, `"1.5m"`, `"5 m"`, `"99999999999999999999d"`, `99999999999999999999`, `-60`, `[60]`, `1/0`, `"5w"`, `true`} {
		if l := loadText(t, "interface \"eth0\" {\n  connection_tracking {\n    tcp_established_timeout = "+text+"\n  }\n}\n"); l.Policy != nil {
			t.Errorf("%s is accepted as %v", text, l.Policy.Interfaces[0].Timeouts)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := writePolicy(t, map[string][]byte{"b.hcl": nil, "a.hcl.json": []byte("{}"), "c.hcl~": nil, ".d.hcl": nil, "e.json": nil, "f.txt": nil})
	if err := os.Mkdir(filepath.Join(dir, "dir.hcl"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f.txt", filepath.Join(dir, "link.hcl")); err != nil {
		t.Fatal(err)
	}
	got, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "a.hcl.json"), filepath.Join(dir, "b.hcl"), filepath.Join(dir, "link.hcl")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for name, path := range map[string]string{"no such path": filepath.Join(dir, "nowhere"), "a directory without policy files": filepath.Join(dir, "dir.hcl")} {
		if files, err := Files(path); err == nil {
			t.Errorf("%s: %v, want an error", name, files)
		}
		if l := Load(path, Inputs{}); l.Policy != nil || !l.Diagnostics.HasErrors() {
			t.Errorf("%s loads", name)
		}
	}
}

func TestInterfaceNames(t *testing.T) {
	for _, name := range []string{"eth0", "eth*", "*", "br-1a2b3c", "wg0.1", "exactly15bytes.", "ppp@0", "été0", "a~!#$%&"} {
		if problem := interfaceProblem(name, true); problem != "" {
			t.Errorf("%q is refused: %s", name, problem)
		}
	}
	for _, name := range []string{"", ".", "..", "sixteen-bytes-no", "a b", "a\tb", "a/b", "a:b", "a\"b", "a'b", "a`b", "a\\b", "a\x00", "a\x7f",
		"*a", "e**", "\u00a0x", "a\u2003b", "caf\u00e0", "\xff", "\u202ex"} {
		if problem := interfaceProblem(name, true); problem == "" {
			t.Errorf("%q is accepted", name)
		}
	}
}
