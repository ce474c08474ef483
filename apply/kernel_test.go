package apply

import (
	"testing"
)

func TestCommittedTableIsReadBackEqual(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(webTable())
	l.wantSame(webTable())
}

func TestCommittedTableIsTheOneThatNftMakesOfItsText(t *testing.T) {
	t.Parallel()
	committed, loaded := newLab(t), newLab(t)
	committed.apply(webTable())
	loaded.nft(scriptOf(t, webTable()))
	if got, want := committed.list(), loaded.list(); got != want {
		t.Errorf("committed over netlink:\n%s\nloaded by nft:\n%s", got, want)
	}
	loaded.wantSame(webTable())
}
