package report

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func toned(tone Tone, s string) string { return fmt.Sprintf("\x1b[%dm%s\x1b[0m", tone, s) }

func plainly(_ Tone, s string) string { return s }

// snapshot is the fixture as it was at a time.
func snapshot(at time.Duration) Live {
	line := *fixture().Result.Timeline
	line.Length = at
	for i := range line.Lanes {
		l := &line.Lanes[i]
		n := 0
		for _, p := range l.Packets {
			if p.Sent <= at {
				l.Packets[n] = p
				n++
			}
		}
		l.Packets = l.Packets[:n]
		if l.Ended > at {
			l.Ended = 0
		}
	}
	for i := range line.Marks {
		if line.Marks[i].Begun > at {
			line.Marks = line.Marks[:i]
			break
		}
	}
	for i := range line.Steps {
		if line.Steps[i].Begun > at {
			line.Steps = line.Steps[:i]
			break
		}
	}
	return Live{Name: "fixture", Timeline: &line}
}

func TestStrips(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		at             time.Duration
		columns, lines int
	}{{900 * ms, 80, 24}, {2050 * ms, 80, 24}, {3990 * ms, 100, 24}, {2050 * ms, 40, 24}, {2050 * ms, 40, 3}, {2050 * ms, 12, 24}} {
		fmt.Fprintf(&b, "%s, %d × %d\n", c.at, c.columns, c.lines)
		for _, line := range Strips([]Live{snapshot(c.at)}, c.columns, c.lines, plainly) {
			fmt.Fprintf(&b, "%s|\n", line)
		}
		b.WriteByte('\n')
	}
	golden(t, "strips.txt", []byte(b.String()))
}

// Whatever the terminal's size, the text stays inside, and colours do not change
// it.
func TestStripsStayInsideTheTerminal(t *testing.T) {
	all := make([]Live, 5)
	for i := range all {
		all[i] = snapshot(time.Duration(i*700) * ms)
	}
	for columns := range 70 {
		for lines := range 12 {
			for _, n := range []int{0, 1, 2, 5} {
				runs := all[:n]
				got := Strips(runs, columns, lines, toned)
				if len(got) > max(lines-1, 0) {
					t.Fatalf("%d lines of %d", len(got), lines)
				}
				for i, line := range Strips(runs, columns, lines, plainly) {
					if Columns(line) >= columns || Columns(got[i]) != Columns(line) || strings.ContainsAny(line, "\x1b\u202e\n") {
						t.Fatalf("%d columns: %q, %q", columns, line, got[i])
					}
				}
			}
		}
	}
}
