package cli

import (
	"testing"

	"sgc/apply"
)

// An object's name is said once, whatever was done to it.
func TestDriftOfTimeouts(t *testing.T) {
	const text = "ct timeout tcp4.350s: tcp ip { established : 350 }"
	for _, tc := range []struct {
		change apply.Change
		want   string
	}{
		{apply.Change{Action: apply.Update, Text: text, Was: "ct timeout tcp4.350s: tcp ip { established : 999 }"},
			"the ct timeout tcp4.350s was changed by hand: tcp ip { established : 999 }, not tcp ip { established : 350 }"},
		{apply.Change{Action: apply.Update, Text: text, Was: "counter tcp4.350s"},
			"the ct timeout tcp4.350s was changed by hand: counter tcp4.350s, not tcp ip { established : 350 }"},
		{apply.Change{Action: apply.Add, Text: text}, "the ct timeout tcp4.350s: tcp ip { established : 350 } is missing"},
		{apply.Change{Action: apply.Remove, Text: text}, "a ct timeout tcp4.350s: tcp ip { established : 350 } that no policy asks for  (added by hand)"},
		{apply.Change{Action: apply.Remove, Text: "counter mine"}, "a counter mine that no policy asks for  (added by hand)"},
	} {
		tc.change.Kind, tc.change.Name = apply.ObjectKind, "tcp4.350s"
		if got := describeDrift(tc.change); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.change.Action, got, tc.want)
		}
	}
}
