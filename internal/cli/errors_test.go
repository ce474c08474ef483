package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// outcome runs a child and returns its exit code and what it printed.
func outcome(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errout strings.Builder
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errout
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errout.String()}
}

func (s *stage) mustFail(r result, says ...string) {
	s.t.Helper()
	if r.code != 1 {
		s.t.Errorf("exit %d, want 1: %s%s", r.code, r.out, r.err)
	}
	for _, text := range says {
		if !strings.Contains(r.err, text) {
			s.t.Errorf("the message does not say %q:\n%s", text, r.err)
		}
	}
	if strings.Contains(r.err, "goroutine") {
		s.t.Errorf("a panic:\n%s", r.err)
	}
}

// unchanged checks that the kernel and the state directory hold nothing.
func (s *stage) unchanged() {
	s.t.Helper()
	k, dir := s.open()
	snapshot, err := k.Snapshot(context.Background(), nil)
	if err != nil || snapshot.Table != nil {
		s.t.Errorf("the kernel holds %v, %v", snapshot.Table, err)
	}
	if r, err := dir.Pending(); err != nil || r != nil {
		s.t.Errorf("a record is pending: %v, %v", r, err)
	}
}

func TestWithoutTheRight(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	for _, command := range [][]string{{"plan", s.dir}, {"apply", "--auto-approve", s.dir}, {"status"}, {"destroy", "--auto-approve"}} {
		// Root of a user namespace of its own has no right over the namespace
		// of the host, which it is in.
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, append(command, "--state-dir="+s.state())...)
		cmd.Env = append(os.Environ(), asSGC+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		s.mustFail(outcome(t, cmd), "not permitted", "run as root")
	}
}

func TestNoSuchNamespace(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.ns = nil
	for netns, says := range map[string]string{
		"no-such-namespace":             `"no-such-namespace"`,
		filepath.Join(s.dir, "missing"): "missing",
		filepath.Join(s.dir, "web.hcl"): "no network namespace",
		"/proc/self/ns/mnt":             "no network namespace",
	} {
		for _, command := range [][]string{{"plan", s.dir}, {"apply", "--auto-approve", s.dir}, {"status"}, {"destroy", "--auto-approve"}} {
			s.mustFail(s.sgc(context.Background(), nil, append(command, "--netns="+netns)...), says)
		}
	}
}

func TestStateDirectoryThatCannotBeUsed(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.write("file", "")
	key, err := namespaceKey(s.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	loose := filepath.Join(s.dir, "loose", "netns", key)
	if err := os.MkdirAll(loose, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(loose, 0o777); err != nil {
		t.Fatal(err)
	}
	for dir, says := range map[string]string{
		filepath.Join(s.dir, "file"):  "not a directory",
		filepath.Join(s.dir, "loose"): "can be written by others",
		"/proc/sgc":                   "state directory",
	} {
		var out, errout strings.Builder
		streams := Streams{In: strings.NewReader(""), Out: &out, Err: &errout, Environ: []string{"SGC_STATE_DIR=" + dir}}
		code := Run(context.Background(), []string{"sgc", "apply", "--auto-approve", "--netns", s.ns.Path(), s.dir}, streams)
		s.mustFail(result{code, out.String(), errout.String()}, says)
	}
	s.unchanged()
}

// privately runs a script in a mount namespace of its own, in which $SGC is sgc.
func (s *stage) privately(script string) result {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", "mount --make-rprivate /\n"+script)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), asSGC+"=1", "SGC="+self, "NETNS="+s.ns.Path(), "STATE="+s.state())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return outcome(s.t, cmd)
}

func TestFullDisk(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	r := s.privately(`
mkdir -p $STATE
mount -t tmpfs -o size=16k,mode=0700 none $STATE
mkdir -p $STATE/netns
dd if=/dev/zero of=$STATE/fill bs=1k 2>$STATE/../dd || true
exec $SGC apply --auto-approve --netns=$NETNS --state-dir=$STATE web.hcl
`)
	s.mustFail(r, "no space left on device", "make room")
	s.unchanged()

	// The same after a policy is enforced: the kernel keeps that one.
	s.mustRun("apply", "--auto-approve", s.dir)
	s.write("web.hcl", dbPolicy)
	r = s.privately(`
mv $STATE $STATE.all
mkdir $STATE
mount -t tmpfs -o size=64k,mode=0700 none $STATE
cp -a $STATE.all/. $STATE/
dd if=/dev/zero of=$STATE/fill bs=1k 2>$STATE/../dd || true
umask 077
code=0
$SGC apply --auto-approve --netns=$NETNS --state-dir=$STATE web.hcl || code=$?
$SGC status --netns=$NETNS --state-dir=$STATE
umount $STATE
rmdir $STATE
mv $STATE.all $STATE
exit $code
`)
	s.mustFail(r, "no space left on device")
	if !strings.Contains(r.out, "drift\n  none\n") {
		t.Errorf("after the failure status prints\n%s%s", r.out, r.err)
	}
}

func TestOutputThatCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	defer full.Close()
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	for _, command := range [][]string{{"validate", s.dir}, {"compile", s.dir}, {"plan", s.dir}, {"status"}, {"version"}, {"help"}} {
		cmd := s.child(command...)
		cmd.Stdout = full
		s.mustFail(outcome(t, cmd), "write the output")
	}
}

// However a namespace is named, it has one record.
func TestRecordOfANamedNamespace(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	r := s.privately(`
mount -t tmpfs none /run
mkdir /run/netns
touch /run/netns/blue
mount --bind $NETNS /run/netns/blue
$SGC apply --auto-approve --netns=blue --state-dir=$STATE web.hcl >apply
test -f $STATE/netns/blue/applied.json
for netns in blue /run/netns/blue $NETNS; do
	$SGC status --netns=$netns --state-dir=$STATE | head -n 1
done
nsenter --net=/run/netns/blue $SGC status --state-dir=$STATE | head -n 1
`)
	if r.code != 0 || strings.Count(r.out, "Enforced since") != 4 {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if entries, err := os.ReadDir(filepath.Join(s.state(), "netns")); err != nil || len(entries) != 1 {
		t.Errorf("records: %v, %v", entries, err)
	}
}

func TestRecordsOfTwoNamespacesStayApart(t *testing.T) {
	a, b := newStage(t, true), newStage(t, true)
	b.dir = a.dir
	a.write("web.hcl", webPolicy)
	a.mustRun("apply", "--auto-approve", a.dir)
	if r := b.mustRun("status"); r.out != "Nothing is enforced.\n" {
		t.Errorf("the other namespace: %s", r.out)
	}
	b.mustRun("apply", "--auto-approve", a.dir)
	a.mustRun("destroy", "--auto-approve")
	if r := b.mustRun("plan", a.dir); !strings.Contains(r.out, "No changes.") {
		t.Errorf("the other namespace: %s", r.out)
	}
}

func TestMistakesInThePolicyNeedNoKernel(t *testing.T) {
	s := newStage(t, false)
	s.write("web.hcl", strings.Replace(webPolicy, "security_group.web]", "security_group.wbe]", 1))
	for _, command := range []string{"plan", "apply", "compile", "validate"} {
		s.mustFail(s.sgc(context.Background(), nil, command, s.dir, "--netns=nowhere"), `Did you mean "web"?`)
	}
	s.write("web.hcl", webPolicy)
	if err := os.Symlink("nowhere", filepath.Join(s.dir, "gone.hcl")); err != nil {
		t.Fatal(err)
	}
	s.mustFail(s.sgc(context.Background(), nil, "validate", s.dir), "no such file")
}

func TestPlanIsReadOnly(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.mustRun("apply", "--auto-approve", s.dir)
	s.write("web.hcl", dbPolicy)
	r := s.privately(`
mount --bind $STATE $STATE
mount -o remount,bind,ro $STATE
$SGC plan --netns=$NETNS --state-dir=$STATE web.hcl
$SGC status --netns=$NETNS --state-dir=$STATE
! $SGC apply --auto-approve --netns=$NETNS --state-dir=$STATE web.hcl
`)
	if r.code != 0 || !strings.Contains(r.out, "Plan: 1 to add") || !strings.Contains(r.out, "Enforced since") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if !strings.Contains(r.err, "read-only file system") {
		t.Errorf("apply says %q", r.err)
	}
}

func TestUnreadableFile(t *testing.T) {
	s := newStage(t, false)
	s.write("web.hcl", webPolicy)
	if err := os.Chmod(filepath.Join(s.dir, "web.hcl"), 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(s.dir, "web.hcl"), 12345, 12345); err != nil {
			t.Skipf("SKIP: root reads every file: %v", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "validate", s.dir)
	cmd.Env = append(os.Environ(), asSGC+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	s.mustFail(outcome(t, cmd), "web.hcl", "permission denied")
}

func TestColour(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	for _, tc := range []struct {
		name     string
		terminal bool
		args     []string
		environ  []string
		want     bool
	}{
		{"a terminal", true, nil, nil, true},
		{"no terminal", false, nil, nil, false},
		{"--no-color", true, []string{"--no-color"}, nil, false},
		{"NO_COLOR", true, nil, []string{"NO_COLOR=1"}, false},
		{"an empty NO_COLOR", true, nil, []string{"NO_COLOR="}, true},
		{"a dumb terminal", true, nil, []string{"TERM=dumb"}, false},
		{"JSON", true, []string{"--json"}, nil, false},
	} {
		var out, errout strings.Builder
		streams := Streams{In: strings.NewReader(""), Out: &out, Err: &errout, Environ: tc.environ, OutTerminal: tc.terminal, ErrTerminal: tc.terminal}
		args := append([]string{"sgc", "plan", s.dir, "--netns=" + s.ns.Path(), "--state-dir=" + s.state()}, tc.args...)
		if code := Run(context.Background(), args, streams); code != 0 {
			t.Fatalf("%s: exit %d: %s", tc.name, code, &errout)
		}
		if got := strings.Contains(out.String()+errout.String(), "\x1b["); got != tc.want {
			t.Errorf("%s: colour %v, want %v\n%s", tc.name, got, tc.want, fmt.Sprintf("%q", out.String()))
		}
	}
}
