package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sgc/internal/lab/labtest"
)

// screen is a terminal that knows what sgc uses of one. It has no bottom.
type screen struct {
	mu        sync.Mutex
	lines     [][]rune
	row, col  int
	sequences map[string]int
	// widest is the longest line that ever was.
	widest int
	bad    []string
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := []rune(string(b))
	for i := 0; i < len(text); i++ {
		for len(s.lines) <= s.row {
			s.lines = append(s.lines, nil)
		}
		switch text[i] {
		case '\n':
			s.row, s.col = s.row+1, 0
		case '\r':
			s.col = 0
		case '\x1b':
			end := i + 2
			for end < len(text) && (text[end] >= '0' && text[end] <= '9' || text[end] == ';') {
				end++
			}
			s.escape(string(text[i+2:end]), text[end])
			i = end
		default:
			line := s.lines[s.row]
			for len(line) <= s.col {
				line = append(line, ' ')
			}
			line[s.col] = text[i]
			s.lines[s.row] = line
			s.col++
			s.widest = max(s.widest, s.col)
		}
	}
	return len(b), nil
}

func (s *screen) escape(number string, command rune) {
	s.sequences[string(command)]++
	switch command {
	case 'A':
		n, err := strconv.Atoi(number)
		if err != nil || n > s.row {
			s.bad = append(s.bad, "up "+number)
			return
		}
		s.row -= n
	case 'K':
		s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
	case 'J':
		s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
		s.lines = s.lines[:s.row+1]
	case 'm':
	default:
		s.bad = append(s.bad, string(command))
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, line := range s.lines {
		b.WriteString(strings.TrimRight(string(line), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// What a terminal shows at the end is what is written without one, whatever was
// shown in between.
func TestLiveViewLeavesTheResult(t *testing.T) {
	t.Parallel()
	labtest.Require(t)
	for name, env := range map[string]string{"in colour": "NO_COLOR=", "without colour": "NO_COLOR=1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ok := writeScenario(t, "ok.lab.hcl", strings.Replace(strings.Replace(pingScenario, "EXPECTED", "refused", 1), "200ms", "4s", 1))
			bad := writeScenario(t, "bad.lab.hcl", strings.Replace(strings.Replace(pingScenario, "EXPECTED", "allowed", 1), "200ms", "500ms", 1))
			s := &screen{sequences: map[string]int{}}
			var plain bytes.Buffer
			var mu sync.Mutex
			out := writerFunc(func(b []byte) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				return io.MultiWriter(s, &plain).Write(b)
			})
			code := Run(context.Background(), []string{"sgc", "lab", "run", "--parallel", "2", ok, bad}, Streams{
				In: strings.NewReader(""), Out: out, Err: s, ErrTerminal: true, Width: 60, Environ: append(os.Environ(), "TERM=xterm", env),
			})
			if code != exitDifferent || len(s.bad) > 0 {
				t.Fatalf("exit %d, %q\n%s", code, s.bad, s.text())
			}
			if s.sequences["A"] < 5 || (s.sequences["m"] > 0) != (name == "in colour") {
				t.Errorf("escape sequences: %v", s.sequences)
			}
			// The explanation of what failed went to standard error.
			explained := s.text()
			before, rest, found := strings.Cut(explained, "Error: Not as expected: ping\n")
			_, rest, _ = strings.Cut(rest, "no entry of it.")
			// Behind it may stand that the machine was late.
			_, after, ended := strings.Cut(rest, "\n\n")
			if !found || !ended {
				t.Fatalf("no explanation in\n%s", explained)
			}
			if got, want := before+after, plain.String(); strings.TrimRight(got, "\n") != strings.TrimRight(want, "\n") {
				t.Error(unified("want", "got", want, got))
			}
		})
	}
}

// Without a terminal, or on one that cannot move its cursor, there are no escape
// sequences.
func TestNoLiveViewWithoutATerminal(t *testing.T) {
	t.Parallel()
	labtest.Require(t)
	path := writeScenario(t, "ok.lab.hcl", strings.Replace(strings.Replace(pingScenario, "EXPECTED", "refused", 1), "200ms", "600ms", 1))
	for name, streams := range map[string]Streams{"no terminal": {}, "dumb": {ErrTerminal: true, OutTerminal: true, Environ: []string{"TERM=dumb"}}} {
		var out, errout bytes.Buffer
		streams.In, streams.Out, streams.Err = strings.NewReader(""), &out, &errout
		streams.Environ = append(os.Environ(), streams.Environ...)
		if code := Run(context.Background(), []string{"sgc", "lab", "run", path}, streams); code != exitOK || errout.Len() > 0 || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: exit %d\n%q%q", name, code, out.String(), errout.String())
		}
	}
}

// A terminal that is gone does not fail the run.
func TestLiveViewOfATerminalThatIsGone(t *testing.T) {
	t.Parallel()
	labtest.Require(t)
	path := writeScenario(t, "ok.lab.hcl", strings.Replace(strings.Replace(pingScenario, "EXPECTED", "refused", 1), "200ms", "600ms", 1))
	var out bytes.Buffer
	code := Run(context.Background(), []string{"sgc", "lab", "run", path}, Streams{
		In: strings.NewReader(""), Out: &out, ErrTerminal: true, Environ: append(os.Environ(), "TERM=xterm"),
		Err: writerFunc(func([]byte) (int, error) { return 0, errors.New("gone") }),
	})
	if code != exitOK || !strings.Contains(out.String(), "1 scenario: 1 as expected.") {
		t.Errorf("exit %d\n%s", code, out.String())
	}
}

// writerFunc writes as it likes.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
