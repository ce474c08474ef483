package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/netns"
	"sgc/internal/ruleset"
)

// A lab is a fresh network namespace with nothing in it.
type lab struct {
	t      testing.TB
	netns  *os.File
	kernel *Kernel
}

// newLab makes a namespace that ends with the test. Where namespaces cannot be
// made the test is skipped, or fails if SGC_REQUIRE_KERNEL is set.
func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		l.netns = f
		return err
	})
	if err == nil {
		l.kernel, err = Open(fmt.Sprintf("/proc/self/fd/%d", l.netns.Fd()))
	}
	if err != nil {
		if os.Getenv("SGC_REQUIRE_KERNEL") == "1" || !errors.Is(err, os.ErrPermission) {
			t.Fatal(err)
		}
		t.Skipf("SKIP: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.kernel.Close(), l.netns.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// onThread runs f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// await waits for what is sure to happen, though the machine may stand still
// before it does.
func await(what string, happened func() (bool, error)) error {
	const most = time.Minute
	for end := time.Now().Add(most); ; time.Sleep(5 * time.Millisecond) {
		switch done, err := happened(); {
		case done || err != nil:
			return err
		case time.Now().After(end):
			return fmt.Errorf("waited %s in vain: %s", most, what)
		}
	}
}

// run runs a command in the namespace and returns what it printed.
func (l *lab) run(stdin string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := l.start(cmd)
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), err
}

// start runs a prepared command in the namespace.
func (l *lab) start(cmd *exec.Cmd) error {
	return netns.Do(int(l.netns.Fd()), "", cmd.Run)
}

// nft runs a script with the nft tool, which stands for everybody else who
// changes nf_tables.
func (l *lab) nft(script string) {
	l.t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("SGC_REQUIRE_KERNEL") == "1" {
			l.t.Fatal(err)
		}
		l.t.Skip("SKIP: the nft tool is not installed")
	}
	if _, err := l.run(script, "nft", "-f", "-"); err != nil {
		l.t.Fatal(err)
	}
}

// try is nft for what a kernel may have been built without.
func (l *lab) try(script string) {
	l.t.Helper()
	if _, err := l.run(script, "nft", "-f", "-"); err != nil {
		l.t.Skipf("SKIP: this kernel cannot do it: %v", err)
	}
}

// list returns the table as the nft tool prints it, with its chains and sets in
// order: the kernel lists them by age, which means nothing.
func (l *lab) list() string {
	l.t.Helper()
	out, err := l.run("", "nft", "-n", "list", "table", "inet", "sgc")
	if err != nil {
		l.t.Fatal(err)
	}
	var head string
	var blocks []string
	inside := false
	for line := range strings.Lines(out) {
		switch {
		case strings.HasPrefix(line, "\t") && strings.HasSuffix(line, " {\n") && !inside:
			inside = true
			blocks = append(blocks, line)
		case inside:
			blocks[len(blocks)-1] += line
			inside = line != "\t}\n"
		case line != "\n":
			head += line
		}
	}
	slices.Sort(blocks)
	return head + strings.Join(blocks, "")
}

func (l *lab) snapshot() *Snapshot {
	l.t.Helper()
	s, err := l.kernel.Snapshot(context.Background(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) diff(want *ruleset.Table) *Delta {
	l.t.Helper()
	d, err := Diff(l.snapshot(), want)
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

// apply commits what is missing for want, and returns what it was.
func (l *lab) apply(want *ruleset.Table) *Delta {
	l.t.Helper()
	d := l.diff(want)
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		l.t.Fatal(err)
	}
	return d
}

// wantSame fails the test if the kernel does not hold want.
func (l *lab) wantSame(want *ruleset.Table) {
	l.t.Helper()
	if d := l.diff(want); !d.Empty() {
		l.t.Fatalf("the kernel's table differs from the wanted one:\n%s", changesText(d))
	}
}

func changesText(d *Delta) string {
	var b strings.Builder
	n := 0
	for c := range d.Changes() {
		if n++; n > 40 {
			b.WriteString("…\n")
			break
		}
		fmt.Fprintf(&b, "%s %s %s (%s): %q", c.Action, c.Kind, c.Name, c.Comment, c.Text)
		if c.Was != "" {
			fmt.Fprintf(&b, " was %q", c.Was)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// scriptOf returns the table as an nft script.
func scriptOf(t testing.TB, table *ruleset.Table) string {
	var b strings.Builder
	if err := table.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
