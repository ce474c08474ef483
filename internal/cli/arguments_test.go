package cli

import (
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	for _, tc := range []struct{ name, in, want, fails string }{
		{"nothing", "", "", ""},
		{"flags before the argument stay", "plan --json policies", "plan --json=true -- policies", ""},
		{"flags after the argument move before it", "plan policies --json", "plan --json=true -- policies", ""},
		{"one dash is as good as two", "plan -json policies", "plan --json=true -- policies", ""},
		{"the value of a flag is no argument", "plan --out saved policies", "plan --out=saved -- policies", ""},
		{"a value after an equals sign", "plan policies -out=saved", "plan --out=saved -- policies", ""},
		{"an empty value", "plan --out= policies", "plan --out= -- policies", ""},
		{"global flags stand before the command too", "--netns blue -json plan policies", "plan --netns=blue --json=true -- policies", ""},
		{"two dashes end the flags", "plan --json -- --out", "plan --json=true -- --out", ""},
		{"a single dash is an argument", "fmt - --check", "fmt --check=true -- -", ""},
		{"a flag that is set to false", "plan --json=false", "plan --json=false --", ""},
		{"a value with commas and equals signs", "plan --var ports=[80,443] --var a=b=c", "plan --var=ports=[80,443] --var=a=b=c --", ""},
		{"a value that begins with a dash needs the equals sign", "plan --out=-saved", "plan --out=-saved --", ""},
		{"a flag is no value", "plan --out --json", "", `--out needs a value; if "--json" is the value`},
		{"a value is missing", "plan policies --out", "", "--out needs a value"},
		{"neither true nor false", "plan --json=maybe", "", `the value of --json is true or false, not "maybe"`},
		{"no number", "plan --flows many", "", `the value of --flows is a whole number, not "many"`},
		{"a time without its unit", "log --for 90", "", `the value of --for is a time with its unit, such as 90s or 5m, not "90"`},
		{"numbers and times", "log --count 3 --for 1m30s", "log --count=3 --for=1m30s --", ""},
		{"an unknown command", "pln", "", `Did you mean "plan"?`},
		{"a command like none", "frobnicate", "", "sgc help lists the commands"},
		{"an unknown flag", "plan --jsn", "", "Did you mean --json?"},
		{"an unknown flag with a value", "plan --ou=x", "", "unknown flag --ou. Did you mean --out?"},
		{"a flag like none", "plan --frobnicate", "", "sgc help plan"},
		{"a flag of another command", "plan --check", "", "unknown flag --check"},
		{"a flag of a command before the command", "--check fmt", "", "belongs after its command, such as sgc fmt --check"},
		{"three dashes", "plan ---json", "", "unknown flag ---json"},
		{"two dashes before a command", "-- plan", "", "a command is expected before --"},
		{"version as a flag", "--version", "version --", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &session{}
			l, err := arrange(strings.Fields(tc.in), s.commands())
			switch {
			case tc.fails == "" && err != nil:
				t.Fatal(err)
			case tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)):
				t.Fatalf("got error %v, want %q", err, tc.fails)
			case tc.fails == "" && strings.Join(l.words, " ") != tc.want:
				t.Errorf("got  %s\nwant %s", strings.Join(l.words, " "), tc.want)
			}
		})
	}
}

func TestHelpStandsAnywhere(t *testing.T) {
	for _, in := range []string{"-h", "--help plan", "plan policies --help", "plan --json -h"} {
		l, err := arrange(strings.Fields(in), (&session{}).commands())
		if err != nil || !l.help {
			t.Errorf("%s: help %v, error %v", in, l.help, err)
		}
	}
}

// The order of the words makes no difference: however the flags and the
// argument of a command are mixed, the same command line comes out.
func TestOrderOfWordsMakesNoDifference(t *testing.T) {
	units := [][]string{{"--json"}, {"-out", "saved"}, {"policies"}, {"--netns=blue"}}
	want := map[string]bool{"--json=true": true, "--out=saved": true, "--netns=blue": true}
	var permute func(rest, done [][]string)
	permute = func(rest, done [][]string) {
		if len(rest) == 0 {
			args := []string{"plan"}
			for _, u := range done {
				args = append(args, u...)
			}
			l, err := arrange(args, (&session{}).commands())
			if err != nil {
				t.Fatal(err)
			}
			if n := len(l.words); n != 6 || l.words[n-2] != "--" || l.words[n-1] != "policies" {
				t.Errorf("%q became %q", args, l.words)
			}
			for _, w := range l.words[1:4] {
				if !want[w] {
					t.Errorf("%q became %q", args, l.words)
				}
			}
			return
		}
		for i := range rest {
			next := append(append([][]string{}, rest[:i]...), rest[i+1:]...)
			permute(next, append(append([][]string{}, done...), rest[i]))
		}
	}
	permute(units, nil)
}
