package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// The connection that a flush runs over is not cut by it, unless that is forced.
func TestFlushSparesItsOwnConnection(t *testing.T) {
	s := explainedScene(t)
	s.script("flows.sh")
	s.mustRun("apply", "--auto-approve", "--flush=none", s.dir+"/web.hcl")
	flush := func(ssh string, args ...string) result {
		t.Helper()
		var out, errout bytes.Buffer
		streams := Streams{In: strings.NewReader(""), Out: &out, Err: &errout, Environ: []string{sshVariable + "=" + ssh}}
		args = append([]string{"sgc", "conntrack", "flush", "--auto-approve", "--state-dir=" + s.state(), "--netns=" + s.ns.Path()}, args...)
		return result{Run(context.Background(), args, streams), out.String(), errout.String()}
	}
	count := func() string { return s.mustRun("conntrack", "list", "--count").out }
	before := count()
	const mine = "203.0.113.7 1000 192.0.2.10 22"
	for _, args := range [][]string{{"--port=22"}, {"--all"}, {"--all", "--json"}} {
		s.mustFail(flush(mine, args...), "SSH connection that it runs over (203.0.113.7:1000 → 192.0.2.10:22)", "nothing was deleted", "--force")
		if got := count(); got != before {
			t.Errorf("flush %v: %s entries, had %s", args, got, before)
		}
	}
	// It is not chosen, or not in the way.
	for ssh, args := range map[string][]string{
		mine:                               {"--port=2525"},
		"203.0.113.7 1001 192.0.2.10 22":   {"--port=2222"},
		"198.51.100.7 1000 192.0.2.10 443": {"--port=443", "--class=open"}, // goes on with a new entry
	} {
		if r := flush(ssh, args...); r.code != 0 || !strings.Contains(r.out, "Deleted ") {
			t.Errorf("flush %v over %s: %+v", args, ssh, r)
		}
	}
	if r := flush(mine, "--port=22", "--cidr=203.0.113.7", "--force"); r.code != 0 || !strings.Contains(r.out, "Deleted 1 conntrack entry.") {
		t.Errorf("--force: %+v", r)
	}
}
