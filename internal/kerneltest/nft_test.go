package kerneltest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/corpus"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// What nft loads from the text of a policy is what an apply of the policy would
// commit: nothing is left to do. And nft can read what it then lists.
func TestNftLoadsWhatIsCommitted(t *testing.T) {
	nft := labtest.Command(t, "nft")
	if lab.InUserNamespace(os.Environ()) {
		t.Skip("SKIP: nft sends a large ruleset at once, which it may not in a user namespace")
	}
	ns := labtest.Namespace(t, "host")
	k := openKernel(t, ns)
	first := envNumber(t, "SGC_KERNEL_SEED", 1)
	for seed := first; seed < first+25; seed++ {
		p := corpus.Policy(corpus.Seeded(uint64(seed)), corpus.Options{ACLs: true, AlwaysTrack: true, Logs: true, Timeouts: true})
		table := compile.Compile(p, compile.Environment{})
		var script bytes.Buffer
		if err := table.WriteText(&script); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = bytes.NewReader(script.Bytes())
		var out []byte
		if err := ns.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil {
			t.Fatalf("SGC_KERNEL_SEED=%d: nft: %v\n%s", seed, err, out)
		}
		// Somebody may keep the list for the next boot.
		var list []byte
		if err := ns.Do(func() (err error) { list, err = exec.Command(nft, "list", "ruleset").Output(); return err }); err != nil {
			t.Fatalf("SGC_KERNEL_SEED=%d: nft list ruleset: %v", seed, err)
		}
		check := exec.Command(nft, "-c", "-f", "-")
		check.Stdin = bytes.NewReader(list)
		if err := ns.Do(func() (err error) { out, err = check.CombinedOutput(); return err }); err != nil {
			t.Errorf("SGC_KERNEL_SEED=%d: nft does not take its own list: %v\n%s", seed, err, out)
		}
		have, err := k.Snapshot(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := apply.Diff(have, table)
		if err != nil {
			t.Fatal(err)
		}
		for c := range d.Changes() {
			t.Errorf("SGC_KERNEL_SEED=%d: %v %v %s: %s, was %s", seed, c.Action, c.Kind, c.Name, c.Text, c.Was)
		}
	}
}
