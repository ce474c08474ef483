package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insideVariable marks the process that RunInUserNamespace started, so that it
// never starts another, even where the system gave it no rights.
const insideVariable = "SGC_LAB_USER_NAMESPACE"

// MayMakeNamespaces reports whether the calling thread has the rights that the
// lab needs in its present user namespace, and over its network namespace.
func MayMakeNamespaces() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	// Version 3 has 64 capabilities in two halves; those needed are in the
	// first.
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	return data[0].Effective&needed == needed && mayReturn()
}

// mayReturn reports whether the calling thread has rights over the network
// namespace that it is in. Root of a user namespace that was made without a
// network namespace (unshare --user --map-root-user) has none: a thread that
// enters another one cannot come back.
//
// Source: Linux net/core/net_namespace.c, netns_install.
func mayReturn() bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET) == nil
}

// InUserNamespace reports whether the environment is that of a process that
// RunInUserNamespace started.
func InUserNamespace(environ []string) bool {
	return slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, insideVariable+"=") })
}

// Rerun is a second run of this program.
type Rerun struct {
	// Args are the arguments without the program's name, Env its environment.
	Args, Env      []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// ErrNoUserNamespace says that the system lets this process make no user
// namespace. It wraps the kernel's reason; see WhyNoNamespaces.
var ErrNoUserNamespace = errors.New("no user namespace")

// ErrEnded says that the second run was ended from outside.
var ErrEnded = errors.New("ended")

// RunInUserNamespace runs this program again as root of new user, network and
// mount namespaces, which need no privileges where the system allows them, and
// returns its exit code. The second run and its namespaces end with the
// context, and with this process, whatever ends that. It fails with
// ErrNoUserNamespace, wrapped, where the run could not be started, and with
// ErrEnded, wrapped, where a signal ended it.
func RunInUserNamespace(ctx context.Context, r Rerun) (code int, err error) {
	// The death signal is sent when the thread ends that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", r.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(slices.Clone(r.Env), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.Stdin, r.Stdout, r.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
		// A terminal's interrupt reaches this process alone, which then
		// interrupts the other: that one reports it.
		Setpgid: true,
	}
	// The other run clears up and says so; one that does not end is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoUserNamespace, err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case ctx.Err() != nil:
		return 0, fmt.Errorf("the run in a user namespace: %w: %w", ErrEnded, ctx.Err())
	}
	return 0, fmt.Errorf("the run in a user namespace: %w: %w", ErrEnded, err)
}

// namespaceSwitches are the settings by which systems forbid user namespaces.
var namespaceSwitches = []struct{ path, forbids, advice string }{
	{"user/max_user_namespaces", "0", "user.max_user_namespaces=10000"},
	{"kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
	{"kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
}

// WhyNoNamespaces returns the setting that keeps users without privileges from
// making namespaces, as sysctl writes it, and the assignment that lets them;
// both are "" where it is something else, such as a container's seccomp
// profile.
func WhyNoNamespaces() (setting, advice string) {
	for _, s := range namespaceSwitches {
		// A system without the file does not have the switch.
		value, err := os.ReadFile("/proc/sys/" + s.path)
		if err == nil && strings.TrimSpace(string(value)) == s.forbids {
			return strings.ReplaceAll(s.path, "/", ".") + "=" + s.forbids, s.advice
		}
	}
	return "", ""
}
