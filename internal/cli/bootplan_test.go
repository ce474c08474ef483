package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sgc/internal/lab/labtest"
)

// TestTheBootConfigurationIsThatOfTheMachine runs plan in namespaces whose
// /etc is the test's own. Where the first process lives in the network
// namespace, too, that is the machine's, and the boot configuration is for it.
func TestTheBootConfigurationIsThatOfTheMachine(t *testing.T) {
	labtest.Require(t)
	const (
		noMount = 77
		begin   = `mount --make-rprivate / && mount --bind "$0/etc" /etc && `
		end     = ` || exit 77; exec "$1" plan --state-dir="$0/.state" "$0/web.hcl"`
		// first makes the shell the first process, which sgc then is.
		first = `mount -t proc proc /proc`
		// named gives the namespace a name as ip netns does.
		named = `mount -t tmpfs run /run && mkdir /run/netns && touch /run/netns/other && mount --bind /proc/self/ns/net /run/netns/other`
	)
	for _, tc := range []struct {
		name   string
		script string
		flags  uintptr
		conf   string
		want   bool
	}{
		{"the machine's namespace", first, syscall.CLONE_NEWPID, "#!/usr/sbin/nft -f\nflush ruleset\n", true},
		{"the machine's namespace, without a flush", first, syscall.CLONE_NEWPID, "#!/usr/sbin/nft -f\n", false},
		{"another namespace", named, 0, "#!/usr/sbin/nft -f\nflush ruleset\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, false)
			s.write("web.hcl", webPolicy)
			s.write("etc/nftables.conf", tc.conf)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", begin+tc.script+end, s.dir, self)
			cmd.Env = append(os.Environ(), asSGC+"=1")
			cmd.Dir = filepath.Dir(s.dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | tc.flags}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() == noMount && os.Getenv(labtest.RequireVariable) != "1" {
				t.Skipf("SKIP: nothing can be mounted here: %s", out)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			const says = "warnings\n  /etc/nftables.conf:2 says \"flush ruleset\""
			if got := strings.Contains(string(out), says); got != tc.want {
				t.Errorf("plan warns: %v, want %v:\n%s", got, tc.want, out)
			}
		})
	}
}
