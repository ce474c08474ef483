package apply

import (
	"context"
	"testing"
)

func TestKnownContentsAreNotReadAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := newLab(t)
	want := largeTable(30_000)
	d := l.apply(want)
	generation, err := l.kernel.Generation(ctx)
	if err != nil || generation != d.After() {
		t.Fatalf("the generation is %d, and was to be %d: %v", generation, d.After(), err)
	}
	id, err := l.kernel.Identity(d.After())
	if err != nil || id == "" {
		t.Fatalf("identity %q: %v", id, err)
	}
	look := func(known Known) (d *Delta, reports int) {
		s, err := l.kernel.SnapshotKnowing(ctx, func(int, int) { reports++ }, known)
		if err != nil {
			t.Fatal(err)
		}
		d, err = Diff(s, want)
		if err != nil {
			t.Fatal(err)
		}
		return d, reports
	}
	known := Known{Identity: id, Table: want}
	d, remembered := look(known)
	if !d.Empty() {
		t.Errorf("it differs:\n%s", changesText(d))
	}
	// What the kernel tells comes piece by piece, what is remembered at once.
	if _, read := look(Known{}); remembered >= read {
		t.Errorf("%d reports of progress instead of %d", remembered, read)
	}
	// Memory that is wrong shows that it is used at all.
	if d, _ := look(Known{Identity: id, Table: largeTable(29_999)}); d.Empty() {
		t.Error("the elements were read although they were known")
	}
	// Somebody else's change, in our table or not, makes it worth nothing.
	l.nft(`add element inet sgc exempt.ipv4 { 192.0.2.1 }`)
	if d, _ := look(known); d.Messages() != 3 {
		t.Errorf("an element added by hand is not seen:\n%s", changesText(d))
	}
	l.nft(`delete element inet sgc exempt.ipv4 { 192.0.2.1 }`)
	if d, _ := look(Known{Identity: id, Table: largeTable(29_999)}); !d.Empty() {
		t.Error("memory of an earlier generation was used")
	}
	// Another namespace is another identity, even at the same generation.
	other := newLab(t)
	otherID, err := other.kernel.Identity(generation)
	if err != nil || otherID == id {
		t.Errorf("two namespaces are both %q: %v", id, err)
	}
}

func TestGenerationAfterNothing(t *testing.T) {
	t.Parallel()
	d := &Delta{generation: 7}
	if d.After() != 7 {
		t.Errorf("after nothing: %d", d.After())
	}
	d.batches = make([]*batch, 1)
	if d.After() != 8 {
		t.Errorf("after something: %d", d.After())
	}
	d.generation = 1<<32 - 1
	if d.After() != 1 {
		t.Errorf("after the last number: %d", d.After())
	}
	d.batches = make([]*batch, 3)
	if d.After() != 3 {
		t.Errorf("after three transactions from the last number: %d", d.After())
	}
}
