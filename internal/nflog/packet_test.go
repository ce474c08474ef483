package nflog_test

import (
	"testing"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/nflog"
)

func TestPrefixesAreThoseOfTheCompiler(t *testing.T) {
	t.Parallel()
	for _, block := range []string{"eth0", "*", "eth*", "wan.100", "a-b_c~d", "sgc", "ingress", "é"} {
		for _, d := range flow.Directions {
			for _, by := range []nflog.Refuser{nflog.ByACL, nflog.ByGroups} {
				prefix := compile.LogPrefix(block, d, string(by))
				gotBlock, gotD, gotBy, ok := nflog.ParsePrefix(prefix)
				if !ok || gotBlock != block || gotD != d || gotBy != by {
					t.Errorf("%q: got %q, %s, %s, %t", prefix, gotBlock, gotD, gotBy, ok)
				}
			}
		}
	}
}

func TestPrefixesOfOthersAreForeign(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{
		"", "sgc", "sgc ", "sgc : ", "DROP ", "sgc eth0 ingress groups", "sgc eth0 ingress groups:", "sgc eth0 sideways groups: ",
		"sgc eth0 ingress nobody: ", "sgc  ingress groups: ", "sgc eth0 eth1 ingress groups: ", "my sgc eth0 ingress groups: ",
		"sgc eth0 ingress groups: more", "SGC eth0 ingress groups: ",
	} {
		if block, d, by, ok := nflog.ParsePrefix(prefix); ok {
			t.Errorf("%q is %q, %s, %s", prefix, block, d, by)
		}
	}
}
