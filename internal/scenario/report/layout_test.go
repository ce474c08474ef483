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
				if len([]rune(line)) > 1 && textWidth(line, 10) > w {
					t.Errorf("%q in %g has a line %q", s, w, line)
				}
			}
			if got, want := strings.Join(lines, ""), strings.ReplaceAll(s, " ", ""); strings.ReplaceAll(got, " ", "") != want {
				t.Errorf("%q in %g is %q", s, w, lines)
			}
		}
	}
	if got := wrap("one two three", 10, textWidth("one two", 10)); fmt.Sprint(got) != "[one two three]" || len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// A lane's name stands there in full, whatever its length, and no lane lies upon
// another.
func TestLanesHaveTheirNames(t *testing.T) {
	names := []string{"ping", "another visitor of the web site, over IPv6 and with a long name", strings.Repeat("x", 40), "end"}
	line := &scenario.Timeline{Length: time.Second}
	for _, name := range names {
		line.Lanes = append(line.Lanes, scenario.Lane{Name: name})
	}
	bottom := 10.0
	for i, r := range rows(line, 10) {
		if got := strings.ReplaceAll(strings.Join(r.name, ""), " ", ""); got != strings.ReplaceAll(names[i], " ", "") {
			t.Errorf("%q is drawn as %q", names[i], r.name)
		}
		if first := r.base - 2 - float64(len(r.name))*nameStep; r.top != bottom || first < r.top-2 {
			t.Errorf("%q begins at %g, and its name at %g; the lane before it ended at %g", names[i], r.top, first, bottom)
		}
		bottom = r.bottom
	}
	if r := rows(&scenario.Timeline{Lanes: []scenario.Lane{{Name: strings.Repeat("word ", 1000)}}}, 0)[0]; len(r.name) != nameLines {
		t.Errorf("a name of %d lines", len(r.name))
	}
}

// What was under way when its flow was ended is neither lost nor left out.
func TestPacketsUnderWayAtTheEnd(t *testing.T) {
	l := &scenario.Lane{Ended: 1000 * time.Millisecond}
	for _, tt := range []struct {
		sent, arrived time.Duration
		failed        string
		want          kind
	}{
		{sent: 999, want: pending},
		{sent: 999, arrived: 1000, want: passed},
		{sent: 951, want: pending},
		{sent: 949, want: lost},
		{sent: 999, failed: "refused", want: refused},
	} {
		p := &scenario.Packet{Sent: tt.sent * time.Millisecond, Arrived: tt.arrived * time.Millisecond, Failed: tt.failed}
		for _, now := range []time.Duration{0, 10 * time.Second} {
			if got := kindOf(l, p, now); got != tt.want {
				t.Errorf("sent at %d ms, at %s of the record: %s, want %s", tt.sent, now, classes[got], classes[tt.want])
			}
		}
	}
}

func TestNumberedSteps(t *testing.T) {
	for name, want := range map[string]string{"ping": "2: ping", "2: ping": "2: ping", "2. ping": "2. ping", "20 pings": "2: 20 pings", "2": "2"} {
		if got := numbered(1, name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
