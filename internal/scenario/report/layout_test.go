package report

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sgc/internal/scenario"
)

func TestAxis(t *testing.T) {
	for length, want := range map[time.Duration]string{
		time.Millisecond:        "0 s 0.0001 s 0.0002 s 0.0003 s 0.0004 s 0.0005 s 0.0006 s 0.0007 s 0.0008 s 0.0009 s 0.001 s",
		700 * time.Millisecond:  "0 s 0.1 s 0.2 s 0.3 s 0.4 s 0.5 s 0.6 s 0.7 s",
		6570 * time.Millisecond: "0 s 1 s 2 s 3 s 4 s 5 s 6 s",
		time.Hour:               "0 s 500 s 1000 s 1500 s 2000 s 2500 s 3000 s 3500 s",
	} {
		var got []string
		for _, at := range (scale{length}).axisTicks() {
			got = append(got, axisText(at))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", length, s, want)
		}
	}
}

// No label lies upon another, and none leaves the picture.
func TestLabelsKeepApart(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 2))
	for range 200 {
		line := &scenario.Timeline{Length: 10 * time.Second}
		at := time.Duration(0)
		for range 1 + r.IntN(20) {
			at += time.Duration(r.Int64N(int64(time.Second)))
			line.Marks = append(line.Marks, scenario.Mark{Begun: min(at, line.Length), Text: "apply " + strings.Repeat("policy ", 1+r.IntN(9))})
		}
		found, used := labels(line, scaleOf(line))
		for i, a := range found {
			if a.row < 0 {
				continue
			}
			if a.left < 0 || a.right > width || a.row >= used {
				t.Fatalf("seed %d: %q is from %g to %g in row %d of %d", seed, a.text, a.left, a.right, a.row, used)
			}
			for _, b := range found[:i] {
				if a.row == b.row && a.left < b.right && b.left < a.right {
					t.Fatalf("seed %d: %q and %q overlap", seed, a.text, b.text)
				}
			}
		}
	}
}

func TestFitAndWrap(t *testing.T) {
	for _, s := range []string{"", "a", "a long text with many words in it", "日本語の長い名前です", strings.Repeat("x", 200)} {
		for w := 0.0; w < 200; w += 7 {
			if got := fit(s, 10, w); got != s && got != "…" && textWidth(got, 10) > w && got != "" {
				t.Errorf("%q in %g is %q", s, w, got)
			}
			lines := wrap(s, 10, w)
			for _, line := range lines {
				if line != "…" && textWidth(line, 10) > w {
					t.Errorf("%q in %g has a line %q", s, w, line)
				}
			}
		}
	}
	if got := wrap("one two three", 10, textWidth("one two", 10)); fmt.Sprint(got) != "[one two three]" || len(got) != 2 {
		t.Errorf("%q", got)
	}
}

func TestNumberedSteps(t *testing.T) {
	for name, want := range map[string]string{"ping": "2: ping", "2: ping": "2: ping", "2. ping": "2. ping", "20 pings": "2: 20 pings", "2": "2"} {
		if got := numbered(1, name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
