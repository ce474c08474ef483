package scenario

import "testing"

// One packet is none of several.
func TestWaitText(t *testing.T) {
	for _, tt := range []struct {
		wait Wait
		want string
	}{
		{Wait{Sent: 1, Over: overFlow}, "1 packet sent"},
		{Wait{Passed: 1, Over: overStep}, "1 packet passed since the step's last change"},
		{Wait{Passed: 2, Over: overFlow}, "2 packets passed"},
		{Wait{Sent: 3, Passed: 1, Over: "a"}, `3 packets sent, 1 passed since the last change of step "a"`},
	} {
		if got := waitText(&tt.wait); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
