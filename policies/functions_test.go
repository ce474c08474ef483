package policies

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every function is called once, with the result that Terraform documents.
func TestFunctions(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hello.txt"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	called := map[string]bool{}
	for expr, want := range map[string]string{
		`abs(-5)`:                                        `5`,
		`alltrue([true, true])`:                          `true`,
		`alltrue([])`:                                    `true`,
		`alltrue([true, null])`:                          `false`,
		`anytrue([false, true])`:                         `true`,
		`anytrue([])`:                                    `false`,
		`can(1 + "a")`:                                   `false`,
		`ceil(5.1)`:                                      `6`,
		`chomp("a\n")`:                                   `"a"`,
		`chunklist([1, 2, 3], 2)`:                        `[[1,2],[3]]`,
		`cidrhost("10.12.112.0/20", 16)`:                 `"10.12.112.16"`,
		`cidrhost("10.0.0.0/8", -1)`:                     `"10.255.255.255"`,
		`cidrhost("fd00:fd12:3456:7890::/72", 34)`:       `"fd00:fd12:3456:7890::22"`,
		`cidrnetmask("172.16.0.0/12")`:                   `"255.240.0.0"`,
		`cidrsubnet("172.16.0.0/12", 4, 2)`:              `"172.18.0.0/16"`,
		`cidrsubnet("10.1.2.0/24", 4, 15)`:               `"10.1.2.240/28"`,
		`cidrsubnet("fd00:fd12:3456:7890::/56", 16, 16)`: `"fd00:fd12:3456:7800:1000::/72"`,
		`cidrsubnets("10.1.0.0/16", 4, 4, 8, 4)`:         `["10.1.0.0/20","10.1.16.0/20","10.1.32.0/24","10.1.48.0/20"]`,
		`cidrsubnets("10.1.0.0/16")`:                     `[]`,
		`coalesce("", "a")`:                              `"a"`,
		`coalesce(null, 5)`:                              `5`,
		`coalescelist([], ["a"])`:                        `["a"]`,
		`compact(["a", "", "b"])`:                        `["a","b"]`,
		`concat(["a"], ["b"])`:                           `["a","b"]`,
		`contains(["a"], "a")`:                           `true`,
		`csvdecode("a,b\n1,2\n")`:                        `[{"a":"1","b":"2"}]`,
		`distinct(["a", "a"])`:                           `["a"]`,
		`element(["a", "b"], 3)`:                         `"b"`,
		`endswith("abc", "bc")`:                          `true`,
		`file("hello.txt")`:                              `"hello\n"`,
		`flatten([["a"], []])`:                           `["a"]`,
		`floor(4.9)`:                                     `4`,
		`format("%s-%d", "a", 5)`:                        `"a-5"`,
		`formatlist("%s/32", ["a", "b"])`:                `["a/32","b/32"]`,
		`indent(2, "a\nb")`:                              `"a\n  b"`,
		`index(["a", "b"], "b")`:                         `1`,
		`join(",", ["a", "b"])`:                          `"a,b"`,
		`jsondecode("[1]")`:                              `[1]`,
		`keys({ b = 1, a = 2 })`:                         `["a","b"]`,
		`length(["a"])`:                                  `1`,
		`length("héllo")`:                                `5`,
		`length({ a = 1 })`:                              `1`,
		`length(toset(["a", "a"]))`:                      `1`,
		`log(16, 2)`:                                     `4`,
		`lookup({ a = 1 }, "a")`:                         `1`,
		`lookup({ a = 1 }, "b", "c")`:                    `"c"`,
		`lookup(tomap({ a = 1 }), "b", 2)`:               `2`,
		`lower("A")`:                                     `"a"`,
		`max(1, 2)`:                                      `2`,
		`merge({ a = 1 }, { b = 2 })`:                    `{"a":1,"b":2}`,
		`min(1, 2)`:                                      `1`,
		`one([])`:                                        `null`,
		`one(["a"])`:                                     `"a"`,
		`one(toset(["a"]))`:                              `"a"`,
		`parseint("ff", 16)`:                             `255`,
		`pow(2, 3)`:                                      `8`,
		`range(3)`:                                       `[0,1,2]`,
		`regex("[a-z]+", "53a")`:                         `"a"`,
		`regexall("[a-z]", "ab")`:                        `["a","b"]`,
		`replace("1 + 2", "+", "-")`:                     `"1 - 2"`,
		`replace("hello", "/l+/", "L")`:                  `"heLo"`,
		`reverse([1, 2])`:                                `[2,1]`,
		`setintersection(["a"], ["a", "b"])`:             `["a"]`,
		`setproduct(["a"], [1])`:                         `[["a",1]]`,
		`setsubtract(["a", "b"], ["a"])`:                 `["b"]`,
		`setunion(["a"], ["b"])`:                         `["a","b"]`,
		`signum(-3)`:                                     `-1`,
		`slice(["a", "b"], 1, 2)`:                        `["b"]`,
		`sort(["b", "a"])`:                               `["a","b"]`,
		`split(",", "a,b")`:                              `["a","b"]`,
		`startswith("abc", "ab")`:                        `true`,
		`strcontains("abc", "b")`:                        `true`,
		`strrev("abc")`:                                  `"cba"`,
		`substr("hello", 1, 3)`:                          `"ell"`,
		`sum([1, 2.5])`:                                  `3.5`,
		`title("a b")`:                                   `"A B"`,
		`tobool("true")`:                                 `true`,
		`tolist(["a"])`:                                  `["a"]`,
		`tomap({ a = 1 })`:                               `{"a":1}`,
		`tonumber("5")`:                                  `5`,
		`toset(["b", "a"])`:                              `["a","b"]`,
		`tostring(5)`:                                    `"5"`,
		`trim("?!a!?", "!?")`:                            `"a"`,
		`trimprefix("ab", "a")`:                          `"b"`,
		`trimspace(" a ")`:                               `"a"`,
		`trimsuffix("ab", "b")`:                          `"a"`,
		`try(1 + "a", 5)`:                                `5`,
		`upper("a")`:                                     `"A"`,
		`values({ a = 1 })`:                              `[1]`,
		`zipmap(["a"], [1])`:                             `{"a":1}`,
	} {
		name, _, _ := strings.Cut(expr, "(")
		called[name] = true
		text := fmt.Sprintf("prefix_list \"l\" {\n  description = jsonencode(%s)\n  entries = []\n}\n", expr)
		if err := os.WriteFile(filepath.Join(dir, "a.hcl"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		l := Load(dir, Inputs{})
		if l.Policy == nil {
			t.Errorf("%s: %v", expr, l.Diagnostics)
			continue
		}
		if got := l.Policy.Lists[0].Description; got != want {
			t.Errorf("%s is %s, want %s", expr, got, want)
		}
	}
	called["jsonencode"] = true
	for name := range newLoader(Inputs{}).functions() {
		if !called[name] {
			t.Errorf("%s is not tested", name)
		}
	}
}

func TestFunctionFaults(t *testing.T) {
	for _, expr := range []string{
		`cidrhost("10.0.0.0/31", 5)`, `cidrhost("10.0.0.0", 5)`, `cidrhost("010.0.0.0/8", 5)`, `cidrhost("10.0.0.0/8", 1.5)`,
		`cidrhost("10.0.0.0/8", 1/0)`, `cidrhost("10.0.0.0/8", pow(10, 300))`,
		`cidrnetmask("::/0")`, `cidrsubnet("10.0.0.0/30", 3, 0)`, `cidrsubnet("10.0.0.0/8", 1, 2)`, `cidrsubnet("10.0.0.0/8", 1, -1)`,
		`cidrsubnet("10.0.0.0/8", -1, 0)`, `cidrsubnets("10.0.0.0/8", 1, 1, 1)`, `cidrsubnets("10.0.0.0/8", 0)`, `cidrsubnets("255.255.255.0/24", 1, 1, 1)`,
		`file("nowhere")`, `file(".")`, `index(["a"], "b")`, `index("a", "b")`, `one(["a", "b"])`, `one("a")`, `sum([])`, `sum(["a"])`, `sum([1/0])`, `sum(5)`,
		`lookup({}, "a")`, `lookup([], "a")`, `lookup({}, "a", 1, 2)`, `lookup(tomap({ a = 1 }), "b", "c")`, `length(5)`, `alltrue(5)`,
		`replace("a", "/(/", "b")`, `nowhere(5)`, `1 + "a"`, `[][0]`, `{}.a`, `coalesce("", null)`, `coalesce([], {})`, `coalesce()`,
	} {
		l := loadText(t, fmt.Sprintf("prefix_list \"l\" {\n  description = jsonencode(%s)\n  entries = []\n}\n", expr))
		if l.Policy != nil {
			t.Errorf("%s is %s, want an error", expr, l.Policy.Lists[0].Description)
			continue
		}
		if len(l.Diagnostics) != 1 || l.Diagnostics[0].Subject == nil || strings.Contains(l.Diagnostics[0].Detail, "panic") {
			t.Errorf("%s: %v", expr, l.Diagnostics)
		}
	}
}

// Files that an expression reads belong to the policy.
func TestFileFunctionIsAmongTheFiles(t *testing.T) {
	dir := writePolicy(t, map[string][]byte{
		"a.hcl":    []byte("prefix_list \"l\" {\n  entries = split(\",\", trimspace(file(\"list.txt\")))\n}\n"),
		"list.txt": []byte("10.0.0.0/8,192.0.2.0/24\n"),
	})
	p := Load(dir, Inputs{}).Policy
	if p == nil || len(p.Lists[0].Entries) != 2 {
		t.Fatalf("policy is %v", p)
	}
	if len(p.Files) != 2 || filepath.Base(p.Files[1]) != "list.txt" {
		t.Errorf("files are %v", p.Files)
	}
}
