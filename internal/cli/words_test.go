package cli

import (
	"math"
	"testing"
)

func TestNumbersInWords(t *testing.T) {
	for got, want := range map[string]string{
		plural(0, "rule"):        "0 rules",
		plural(1, "rule"):        "1 rule",
		plural(1234567, "entry"): "1,234,567 entries",
		plural(1, "entry"):       "1 entry",
		thousands(999):           "999",
		thousands(1000):          "1,000",
		thousands(-1000):         "-1,000",
		thousands(-100):          "-100",
		size(0):                  "0 B",
		size(999):                "999 B",
		size(1000):               "1.0 kB",
		size(9949):               "9.9 kB",
		size(9999):               "10 kB",
		size(999_499):            "999 kB",
		size(999_500):            "1.0 MB",
		size(5_000_000_000_000):  "5.0 TB",
		size(math.MaxInt64):      "9.2 EB",
		clean("plain – text"):    "plain – text",
		clean("\x1b[2Jgone\n"):   `\x1b[2Jgone\n`,
		shellWord("/etc/sgc"):    "/etc/sgc",
		shellWord("my policy"):   "'my policy'",
		shellWord("it's"):        `'it'\''s'`,
		shellWord(""):            "''",
		nearest("aply", []string{"apply", "plan"}): "apply",
		nearest("xyz", []string{"apply", "plan"}):  "",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
