package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"sgc/internal/scenario"
	"sgc/internal/scenario/report"
)

// labLive shows on a terminal what the scenarios do that are being played. All
// of its methods may be called of nil, which shows nothing.
type labLive struct {
	w     io.Writer
	paint func(report.Tone, string) string
	// size returns the terminal's columns and lines.
	size func() (columns, lines int)

	mu      sync.Mutex
	playing []livePlay
	// drawn are the widths of the lines that stand above the cursor.
	drawn []int
	// broken says that the terminal is gone.
	broken     bool
	stop, done chan struct{}
}

// livePlay is one scenario that is being played.
type livePlay struct {
	number int
	name   string
	run    interface{ Timeline() *scenario.Timeline }
}

// newLabLive begins to show, unless standard error is no terminal that can move
// its cursor.
func (s *session) newLabLive() *labLive {
	if !s.ErrTerminal || s.lookup("TERM") == "dumb" {
		return nil
	}
	p := s.errPaint()
	l := &labLive{w: s.Err, size: s.terminalSize, stop: make(chan struct{}), done: make(chan struct{})}
	l.paint = func(tone report.Tone, text string) string {
		switch tone {
		case report.Name:
			return p.bold(text)
		case report.Faint:
			return p.dim(text)
		case report.Good:
			return p.green(text)
		case report.Bad:
			return p.red(text)
		}
		return text
	}
	go l.redraw()
	return l
}

// terminalSize is that of now: a window may change it.
func (s *session) terminalSize() (columns, lines int) {
	columns, lines = s.Width, 24
	if f, ok := s.Err.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			columns, lines = w, h
		}
	}
	if columns <= 0 {
		columns = 80
	}
	return columns, lines
}

// redraw shows the runs again and again, until the end.
func (l *labLive) redraw() {
	defer close(l.done)
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
		}
	}
}

// begin shows a run from now on.
func (l *labLive) begin(number int, sc *scenario.Scenario, run *scenario.Run) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.playing = append(l.playing, livePlay{number, scenarioName(sc.File), run})
}

// end shows a run no more.
func (l *labLive) end(number int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.playing {
		if l.playing[i].number == number {
			l.playing = append(l.playing[:i], l.playing[i+1:]...)
			return
		}
	}
}

// between wipes what is shown, lets f write, and leaves it to the next moment
// to show the rest below that.
func (l *labLive) between(f func() error) error {
	if l == nil {
		return f()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wipe()
	return f()
}

// close wipes what is shown, and shows no more.
func (l *labLive) close() {
	if l == nil {
		return
	}
	close(l.stop)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wipe()
}

// draw shows the runs in place of what was shown before.
func (l *labLive) draw() {
	columns, lines := l.size()
	var runs []report.Live
	for _, p := range l.playing {
		runs = append(runs, report.Live{Name: p.name, Timeline: p.run.Timeline()})
	}
	text := l.up(columns)
	l.drawn = l.drawn[:0]
	var b strings.Builder
	for _, line := range report.Strips(runs, columns, lines, l.paint) {
		fmt.Fprintf(&b, "%s\x1b[K\n", line)
		l.drawn = append(l.drawn, report.Columns(line))
	}
	if text == "" && b.Len() == 0 {
		return
	}
	l.write(text + b.String() + "\x1b[J")
}

// wipe removes what is shown.
func (l *labLive) wipe() {
	columns, _ := l.size()
	if text := l.up(columns); text != "" {
		l.drawn = l.drawn[:0]
		l.write(text + "\x1b[J")
	}
}

// up leads the cursor to where the shown lines begin. In a window that has
// become narrower they are more lines than they were.
func (l *labLive) up(columns int) string {
	n := 0
	for _, width := range l.drawn {
		n += max(1, (width+columns-1)/columns)
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA", n)
}

// write gives up on a terminal that is gone: what a command says of itself goes
// elsewhere or fails by itself.
func (l *labLive) write(text string) {
	if l.broken {
		return
	}
	if _, err := io.WriteString(l.w, text); err != nil {
		l.broken = true
	}
}
