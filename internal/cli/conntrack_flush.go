package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sgc/conntrack"
)

// flushView is the JSON form of conntrack flush.
type flushView struct {
	FormatVersion int `json:"format_version"`
	// Chosen are the entries that were found before the question.
	Chosen  int `json:"chosen"`
	Deleted int `json:"deleted"`
	// Ended had ended by themselves before they could be deleted.
	Ended int `json:"ended"`
	// Busy cannot be deleted while hardware or a flowtable forwards them.
	Busy int `json:"busy"`
}

// flushExamples is how many entries the question shows.
const flushExamples = 5

// flushOptions say what to delete, and how.
type flushOptions struct {
	choice      choice
	all         bool
	autoApprove bool
	// force also deletes the entry of the connection that the command runs over.
	force bool
}

func (s *session) conntrackFlush(ctx context.Context, path string, o flushOptions) error {
	chosen := o.choice
	switch {
	case len(chosen.flags) == 0 && !o.all:
		return errors.New("which flows? Choose them by flags such as --revoked, --interface or --port (sgc help conntrack lists them), or every flow of the policy's interfaces with --all")
	case len(chosen.flags) > 0 && o.all:
		return fmt.Errorf("--all and %s contradict each other", strings.Join(chosen.flags, " "))
	}
	p, err := s.neededPolicy(ctx, path, conntrackFlush)
	if err != nil {
		return err
	}
	if err := chosen.resolve(p); err != nil {
		return err
	}
	return s.withTracking(ctx, p, func(t *tracking) error { return s.flush(ctx, t, &chosen.filter, o) })
}

func (s *session) flush(ctx context.Context, t *tracking, f *conntrack.Filter, o flushOptions) error {
	v := flushView{FormatVersion: formatVersion}
	var examples strings.Builder
	lines := entryLines{paint: s.errPaint()}
	ssh, cutsSSH := sshOf(s.Environ), false
	err := t.table.Select(ctx, t.judge, f, func(e *conntrack.Entry, j *conntrack.Judged) error {
		if v.Chosen++; v.Chosen <= flushExamples {
			examples.Write(lines.of(e, j))
		}
		cutsSSH = cutsSSH || ssh.needs(j)
		return nil
	})
	if err := s.explainTorn(err); err != nil {
		return err
	}
	if v.Chosen == 0 {
		return s.showFlushed(v)
	}
	if cutsSSH && !o.force {
		return fmt.Errorf("this would delete the entry of the SSH connection that it runs over (%s → %s), and so cut it; nothing was deleted. To do it all the same: --force", ssh.client, ssh.server)
	}
	if !o.autoApprove {
		s.inform("%s will be deleted:\n%s", plural(v.Chosen, "conntrack entry"), strings.TrimSuffix(examples.String(), "\n"))
		if more := v.Chosen - flushExamples; more > 0 {
			s.inform("… and %s more.", thousands(more))
		}
		if err := s.approve(ctx, "Delete them?", "conntrack flush"); err != nil {
			return err
		}
	}
	r, err := t.table.Flush(ctx, t.judge, f)
	if err != nil {
		if r.Done > 0 {
			err = fmt.Errorf("%w (%s had been deleted by then)", err, plural(r.Done, "entry"))
		}
		return err
	}
	v.Deleted, v.Ended, v.Busy = r.Done, r.Gone, r.Busy
	return s.showFlushed(v)
}

func (s *session) showFlushed(v flushView) error {
	if s.JSON {
		return s.writeJSON(v)
	}
	text := "No conntrack entry is like that, nothing to delete."
	if v.Chosen > 0 {
		text = "Deleted " + plural(v.Deleted, "conntrack entry") + "."
	}
	if v.Ended > 0 {
		text += fmt.Sprintf(" %s had ended by themselves.", thousands(v.Ended))
	}
	if v.Busy > 0 {
		text += fmt.Sprintf(" %s cannot be deleted while a flowtable forwards their packets.", thousands(v.Busy))
	}
	_, err := fmt.Fprintln(s.Out, text)
	return err
}
