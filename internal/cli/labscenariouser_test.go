package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// A user without rights plays scenarios as root does, speed and files included.
func TestScenariosWithoutPrivileges(t *testing.T) {
	cmd := asNobody(t, "lab", "run", "--speed=2", "--json=false", "web/ping.lab.hcl")
	text := strings.Replace(pingScenario, "EXPECTED", "refused", 1)
	if err := os.WriteFile(filepath.Join(cmd.Dir, "web", "ping.lab.hcl"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	if err := cmd.Run(); err != nil || errout.Len() > 0 {
		t.Fatalf("%v: %s%s", err, out.String(), errout.String())
	}
	for _, want := range []string{
		"ping: a ping that is refused\n", "  2 times faster", "udp 30 → 15, udp_stream 180 → 90, icmp 30 → 15", "  ✓ closed\n", "\n1 scenario: 1 as expected.\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// interfacesIn are the names of a namespace's interfaces.
func interfacesIn(t *testing.T, ns *lab.Namespace) (names []string) {
	t.Helper()
	if err := ns.Do(func() error {
		list, err := net.Interfaces()
		for _, i := range list {
			names = append(names, i.Name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// A run that is killed leaves its directory of temporary files, and nothing
// else; lab clean removes it, and none of a run that goes on.
func TestLabCleanAfterAKill(t *testing.T) {
	// A machine in which nobody else makes interfaces.
	machine := labtest.Namespace(t, "machine")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	before := interfacesIn(t, machine)
	path := writeScenario(t, "long.lab.hcl", strings.Replace(strings.Replace(pingScenario, "EXPECTED", "refused", 1), `wait "200ms"`, `wait "1h"`, 1))
	start := func() *exec.Cmd {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "lab", "run", path)
		cmd.Env = append(os.Environ(), asSGC+"=1")
		if err := machine.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
		})
		return cmd
	}
	// The record of the apply says that the scenario is under way.
	applied := func(n int) func() bool {
		return func() bool {
			found, err := filepath.Glob(filepath.Join(dir, "sgc-lab-*", "0", "state", "netns", "*", "applied.json"))
			return err == nil && len(found) == n
		}
	}
	killed := start()
	eventually(t, "an apply", applied(1))
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // it was killed
	running := start()
	eventually(t, "a second apply", applied(2))

	code, out, errout := runScenarios(t, context.Background(), "lab", "clean")
	if code != exitOK || errout != "" || strings.Count(out, "Removed "+dir+"/sgc-lab-") != 1 || strings.Count(out, "Left "+dir+"/sgc-lab-") != 1 {
		t.Errorf("exit %d\n%s%s", code, out, errout)
	}
	if !applied(1)() {
		t.Error("the run that goes on has lost its directory")
	}
	if err := running.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = running.Wait() // it was interrupted
	code, out, _ = runScenarios(t, context.Background(), "lab", "clean")
	if code != exitOK || out != "Nothing to remove.\n" {
		t.Errorf("exit %d\n%s", code, out)
	}
	if after := interfacesIn(t, machine); !slices.Equal(after, before) {
		t.Errorf("the machine's interfaces were %v, now %v", before, after)
	}
}

// lab clean leaves alone what is not its own.
func TestLabCleanLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, name := range []string{"sgc-lab-young", "else"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "else"), filepath.Join(dir, "sgc-lab-link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sgc-lab-file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errout := runScenarios(t, context.Background(), "lab", "clean", "--json")
	want := fmt.Sprintf("{\n  \"format_version\": 1,\n  \"removed\": [],\n  \"running\": [\n    %q\n  ]\n}\n", filepath.Join(dir, "sgc-lab-young"))
	if code != exitOK || out != want {
		t.Errorf("exit %d: %s%s", code, out, errout)
	}
	if code, _, errout := runScenarios(t, context.Background(), "lab", "clean", "x"); code != exitError || errout != "Error: lab clean takes no arguments: x\n" {
		t.Errorf("exit %d: %s", code, errout)
	}
}
