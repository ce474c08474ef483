package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sgc/conntrack"
	"sgc/policies"
)

// flushView is the JSON form of conntrack flush.
type flushView struct {
	FormatVersion int `json:"format_version"`
	// Chosen are the entries that were found before the question, Remembered the
	// flows of other protocols that the rules remembered then.
	Chosen     int `json:"chosen"`
	Remembered int `json:"chosen_remembered"`
	Deleted    int `json:"deleted"`
	// Forgotten are the flows that the rules do not remember any more. Those that a
	// rule allows are back with their next packet.
	Forgotten int `json:"forgotten"`
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
	known, err := s.rememberedFlows(ctx, f)
	if err != nil {
		return err
	}
	shown := map[policies.OtherFlow]bool{}
	var examples strings.Builder
	lines := entryLines{paint: s.errPaint(), known: known}
	ssh, cutsSSH := sshOf(s.Environ), false
	err = t.table.Select(ctx, t.judge, f, func(e *conntrack.Entry, j *conntrack.Judged) error {
		if v.Chosen++; v.Chosen <= flushExamples {
			examples.Write(lines.of(e, j))
		}
		known.shown(j, shown)
		cutsSSH = cutsSSH || ssh.needs(j)
		return nil
	})
	if err := s.explainTorn(err); err != nil {
		return err
	}
	v.Remembered = len(known.without(nil, t.judge, f))
	without := known.without(shown, t.judge, f)
	if v.Chosen+v.Remembered == 0 {
		return s.showFlushed(v)
	}
	if cutsSSH && !o.force {
		return fmt.Errorf("this would delete the entry of the SSH connection that it runs over (%s → %s), and so cut it; nothing was deleted. To do it all the same: --force", ssh.client, ssh.server)
	}
	if !o.autoApprove {
		var judged conntrack.Judged
		for i := 0; i < len(without) && v.Chosen+i < flushExamples; i++ {
			without[i].chosen(t.judge, f, &judged)
			examples.Write(lines.remembered(&without[i], &judged))
		}
		s.inform("%s:\n%s", v.will(), strings.TrimSuffix(examples.String(), "\n"))
		if more := v.Chosen + len(without) - flushExamples; more > 0 {
			s.inform("… and %s more.", thousands(more))
		}
		if err := s.approve(ctx, "Delete them?", "conntrack flush"); err != nil {
			return err
		}
	}
	// First the rules forget, so that no packet passes that makes an entry again.
	if v.Forgotten, err = s.forgetChosen(ctx, t, f); err != nil {
		return err
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

// will says what is about to be done.
func (v *flushView) will() string {
	switch {
	case v.Remembered == 0:
		return plural(v.Chosen, "conntrack entry") + " will be deleted"
	case v.Chosen == 0:
		return otherFlowsText(v.Remembered) + " will be forgotten"
	}
	return fmt.Sprintf("%s will be deleted, and %s forgotten", plural(v.Chosen, "conntrack entry"), otherFlowsText(v.Remembered))
}

func otherFlowsText(n int) string {
	return plural(n, "flow") + " of protocols that sgc tracks by itself"
}

func (s *session) showFlushed(v flushView) error {
	if s.JSON {
		return s.writeJSON(v)
	}
	text := "No conntrack entry is like that, nothing to delete."
	switch {
	case v.Remembered > 0:
		text = fmt.Sprintf("Deleted %s, and forgot %s.", plural(v.Deleted, "conntrack entry"), otherFlowsText(v.Forgotten))
	case v.Chosen > 0:
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
