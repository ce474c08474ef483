package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sgc/apply"
)

// What sgc remembers of the kernel counts only while nobody changed anything:
// this is the same boot, the same namespace, and the same generation.
func TestMemoryCountsOnlyWhileNothingChanged(t *testing.T) {
	requireNft(t)
	ctx := context.Background()
	s := newStage(t, true)
	s.write("web.hcl", networksPolicy("one", 22, 20))
	k, dir := s.open()
	remembered := func() apply.Memory {
		t.Helper()
		m, err := dir.Recall()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	identity := func() string {
		t.Helper()
		generation, err := k.Generation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		id, err := k.Identity(generation)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	memory := filepath.Join(dir.Path(), "memory.json")
	forge := func(m apply.Memory) {
		t.Helper()
		if err := os.WriteFile(memory, []byte(`{"identity":"`+m.Identity+`","table":"`+m.Table+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	drifted := func() bool {
		t.Helper()
		plan, status := s.mustRun("plan", s.dir).out, s.mustRun("status").out
		seen := strings.Contains(plan, "192.0.2.99")
		if seen != strings.Contains(status, "192.0.2.99") || seen == strings.Contains(plan, "No changes.") {
			t.Errorf("plan prints\n%s\nstatus prints\n%s", plan, status)
		}
		return seen
	}

	s.mustRun("apply", "--auto-approve", s.dir)
	own := remembered()
	if own.Identity != identity() || own.Identity == "" {
		t.Fatalf("after an apply %+v is remembered, and nf_tables is %s", own, identity())
	}
	// Another transaction, by anybody and about anything, and it is void.
	s.nft("add table ip other")
	if own.Identity == identity() {
		t.Error("another table is no change")
	}
	s.nft("add element inet sgc exempt.ipv4 { 192.0.2.99 }")
	if !drifted() {
		t.Error("an element that was added by hand is not seen")
	}
	if m := remembered(); m != own {
		t.Errorf("a plan remembers %+v", m)
	}

	// A memory that is wrong shows that it is used at all.
	wrong := apply.Memory{Identity: identity(), Table: own.Table}
	forge(wrong)
	if drifted() {
		t.Error("what is remembered is not used")
	}
	// Not so if the machine was started anew, …
	boot, rest, _ := strings.Cut(wrong.Identity, "/")
	forge(apply.Memory{Identity: strings.Repeat("0", len(boot)) + "/" + rest, Table: wrong.Table})
	if !drifted() {
		t.Error("the memory of another boot was used")
	}
	// … in another namespace, …
	parts := strings.Split(wrong.Identity, "/")
	forge(apply.Memory{Identity: parts[0] + "/1" + parts[1] + "/" + parts[2], Table: wrong.Table})
	if !drifted() {
		t.Error("the memory of another namespace was used")
	}
	// … or if it is of another table than the record compiles to.
	forge(apply.Memory{Identity: wrong.Identity, Table: "sha256:0"})
	if !drifted() {
		t.Error("the memory of another table was used")
	}
	if err := os.WriteFile(memory, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !drifted() {
		t.Error("a damaged memory was used")
	}

	// An apply mends it all, and one that finds nothing to do remembers, too.
	s.mustRun("apply", "--auto-approve", s.dir)
	if m := remembered(); m.Identity != identity() || m.Table != own.Table || drifted() {
		t.Errorf("after an apply %+v is remembered", m)
	}
	s.nft("delete table ip other")
	if r := s.mustRun("apply", "--auto-approve", s.dir); !strings.Contains(r.out, "No changes.") {
		t.Errorf("apply prints\n%s", r.out)
	}
	if m := remembered(); m.Identity != identity() {
		t.Errorf("after an apply of nothing %+v is remembered", m)
	}
	s.mustRun("destroy", "--auto-approve")
	if m := remembered(); m != (apply.Memory{}) {
		t.Errorf("after destroy %+v is remembered", m)
	}
}

// Two namespaces with one state directory each, and as many transactions.
func TestMemoryOfAnotherNamespaceIsNotUsed(t *testing.T) {
	requireNft(t)
	one, other := newStage(t, true), newStage(t, true)
	for _, s := range []*stage{one, other} {
		s.write("web.hcl", networksPolicy("one", 22, 20))
		s.mustRun("apply", "--auto-approve", s.dir)
	}
	_, oneDir := one.open()
	_, otherDir := other.open()
	b, err := os.ReadFile(filepath.Join(oneDir.Path(), "memory.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := oneDir.Recall()
	if err != nil {
		t.Fatal(err)
	}
	o, err := otherDir.Recall()
	if err != nil || o.Identity == m.Identity || o.Table != m.Table {
		t.Fatalf("the memories are %+v and %+v, %v", m, o, err)
	}
	if err := os.WriteFile(filepath.Join(otherDir.Path(), "memory.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	other.nft("add element inet sgc exempt.ipv4 { 192.0.2.99 }")
	if r := other.mustRun("plan", other.dir); !strings.Contains(r.out, "192.0.2.99") {
		t.Errorf("plan prints\n%s", r.out)
	}
}
