package apply

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/netns"
	"sgc/internal/ruleset"
)

// childVariable names the part of TestMain's children.
const childVariable = "SGC_TEST_CHILD"

// TestMain lets the test binary be a process that is killed, or one without
// rights.
func TestMain(m *testing.M) {
	part, argument, _ := strings.Cut(os.Getenv(childVariable), " ")
	var err error
	switch part {
	case "":
		os.Exit(m.Run())
	case "write-ahead":
		err = childWritesAhead(argument)
	case "write-forever":
		err = childWritesForever(argument)
	case "lock":
		err = childLocks(argument)
	case "user-namespace":
		err = childInUserNamespace()
	default:
		err = fmt.Errorf("unknown part %q", part)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(part string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+part)
	cmd.Stderr = os.Stderr
	return cmd
}

// killWhenReady starts a child, waits until it has printed a line and for the
// delay, and kills it.
func killWhenReady(t *testing.T, part string, delay time.Duration) {
	t.Helper()
	cmd := child(part)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	time.Sleep(delay)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v", err)
	}
}

// ready tells the parent to go on, and waits to be killed.
func ready() error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	time.Sleep(time.Minute)
	return err
}

func childWritesAhead(path string) error {
	d, err := OpenDir(path)
	if err != nil {
		return err
	}
	if _, err := d.Lock(context.Background()); err != nil {
		return err
	}
	if err := d.WriteAhead(record("two")); err != nil {
		return err
	}
	return ready()
}

func childLocks(path string) error {
	d, err := OpenDir(path)
	if err != nil {
		return err
	}
	if _, err := d.Lock(context.Background()); err != nil {
		return err
	}
	return ready()
}

func childWritesForever(path string) error {
	d, err := OpenDir(path)
	if err != nil {
		return err
	}
	r := record("new")
	r.Policy = json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
	fmt.Println("ready")
	for {
		if err := errors.Join(d.WriteAhead(r), d.Promote()); err != nil {
			return err
		}
	}
}

func TestKilledBetweenWriteAheadAndPromote(t *testing.T) {
	t.Parallel()
	d := openState(t)
	if err := errors.Join(d.WriteAhead(record("one")), d.Promote()); err != nil {
		t.Fatal(err)
	}
	killWhenReady(t, "write-ahead "+d.Path(), 0)
	// The lock went with the process; both records are there.
	done, cancel := context.WithCancel(context.Background())
	cancel()
	lock, err := d.Lock(done)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	wantRecords(t, d, "one", "two")
}

func TestKilledInTheMiddleOfWriting(t *testing.T) {
	t.Parallel()
	for range 10 {
		d := openState(t)
		if err := errors.Join(d.WriteAhead(record("old")), d.Promote()); err != nil {
			t.Fatal(err)
		}
		killWhenReady(t, "write-forever "+d.Path(), time.Duration(rand.IntN(30))*time.Millisecond)
		applied, err := d.Applied()
		if err != nil || applied == nil || applied.Digest != "old" && applied.Digest != "new" {
			t.Fatalf("applied is %v, %v", applied, err)
		}
		if pending, err := d.Pending(); err != nil || pending != nil && pending.Digest != "new" {
			t.Fatalf("pending is %v, %v", pending, err)
		}
	}
}

func TestLockOfAnotherProcessIsNamed(t *testing.T) {
	t.Parallel()
	d := openState(t)
	cmd := child("lock " + d.Path())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Lock(done); !errors.Is(err, ErrLocked) || !contains(err.Error(), fmt.Sprintf("process %d holds", cmd.Process.Pid)) {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(in.Close(), cmd.Process.Kill()); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child was not killed")
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("SGC_REQUIRE_KERNEL") == "1" {
			t.Fatal("this test must run as root")
		}
		t.Skip("SKIP: this test must run as root")
	}
}

// dropCapabilities takes all rights from the calling thread.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

func TestNoPermission(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	err := onThread(func() error {
		if err := dropCapabilities(); err != nil {
			return err
		}
		if _, err := Open(""); !errors.Is(err, os.ErrPermission) || !contains(err.Error(), "run as root, or with CAP_NET_ADMIN") {
			t.Errorf("Open without rights: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// Entering a namespace needs rights too. The threads of the process have
	// them, so that only a process without any sees it.
	d := l.diff(webTable())
	err = netns.Do(int(l.netns.Fd()), "", func() error {
		if err := dropCapabilities(); err != nil {
			return err
		}
		here := &Kernel{}
		if err := here.Commit(context.Background(), d); !errors.Is(err, os.ErrPermission) || !contains(err.Error(), "run as root") {
			t.Errorf("Commit without rights: %v", err)
		}
		if _, err := here.Snapshot(context.Background(), nil); !errors.Is(err, os.ErrPermission) || !contains(err.Error(), "run as root") {
			t.Errorf("Snapshot without rights: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if l.snapshot().Table != nil {
		t.Error("a table was made without rights")
	}
}

// TestUserNamespace runs without any rights on the host: in a user namespace
// of its own, where the sizes of socket buffers cannot be forced.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	cmd := child("user-namespace")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) && os.Getenv("SGC_REQUIRE_KERNEL") != "1" {
			t.Skipf("SKIP: no user namespaces: %v", err)
		}
		t.Fatal(err)
	}
}

func childInUserNamespace() error {
	ctx := context.Background()
	k, err := Open("")
	if err != nil {
		return err
	}
	s, err := k.Snapshot(ctx, nil)
	if err != nil {
		return err
	}
	d, err := Diff(s, webTable())
	if err != nil {
		return err
	}
	if err := k.Commit(ctx, d); err != nil {
		return err
	}
	if s, err = k.Snapshot(ctx, nil); err != nil {
		return err
	}
	if d, err = Diff(s, webTable()); err != nil || !d.Empty() {
		return fmt.Errorf("the table is not what was committed: %w", err)
	}
	want := webTable()
	want.Sets = append(want.Sets, largeSet(500_000))
	if d, err = Diff(s, want); err != nil {
		return err
	}
	err = k.Commit(ctx, d)
	if err == nil || !contains(err.Error(), "net.core.wmem_max") {
		return fmt.Errorf("a transaction larger than the socket buffer: %w", err)
	}
	if now, err := k.Generation(ctx); err != nil || now != s.Generation {
		return fmt.Errorf("generation %d, was %d: %w", now, s.Generation, err)
	}
	if err := manyTimedElements(ctx, k); err != nil {
		return err
	}
	return k.Close()
}

// manyTimedElements puts in more than the socket takes at once.
func manyTimedElements(ctx context.Context, k *Kernel) error {
	s, err := k.Snapshot(ctx, nil)
	if err != nil {
		return err
	}
	d, err := Diff(s, timedTable())
	if err != nil {
		return err
	}
	if err := k.Commit(ctx, d); err != nil {
		return err
	}
	const n = 60_000
	var changes []TimedChange
	for i := range n {
		e := tuple(i, time.Hour)
		e.Comment = strings.Repeat("x", maxElementComment)
		changes = append(changes, put(exactName, e)...)
	}
	g, err := k.ChangeTimed(ctx, timedTable(), changes)
	if err != nil {
		return err
	}
	if s, err = k.Snapshot(ctx, nil); err != nil {
		return err
	}
	if got := len(s.Table.Set(exactName).Timed); got != n || g.From != d.After() || g.To != s.Generation || g.To < g.From+2 {
		return fmt.Errorf("%d elements, generations %v after %d", got, g, d.After())
	}
	return nil
}

// largeSet is an interval set of n prefixes that do not touch.
func largeSet(n int) *ruleset.Set {
	s := &ruleset.Set{Name: "large", Key: []ruleset.Type{ruleset.IPv4Addr}, Interval: true, Elements: make([]ruleset.Element, n)}
	for i := range n {
		first := uint32(i) << 11
		s.Elements[i] = ruleset.Element{
			First: string(binary.BigEndian.AppendUint32(nil, first)),
			Last:  string(binary.BigEndian.AppendUint32(nil, first+255)),
		}
	}
	return s
}
