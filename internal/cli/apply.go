package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sgc/apply"
	"sgc/conntrack"
	"sgc/policies"
)

// applyOptions are the flags of apply.
type applyOptions struct {
	// Path is the policy's, unless Plan is set.
	Path string
	// Plan is a saved plan, read from PlanFile.
	Plan        *planFile
	PlanFile    string
	AutoApprove bool
	// Force carries a plan out that cuts the connection which the command runs over.
	Force   bool
	Verbose bool
	// Flush says which live flows are cut, Flows how many of them are shown.
	Flush conntrack.FlushMode
	Flows int
	// LockTimeout is how long to wait for another sgc.
	LockTimeout time.Duration
}

func (s *session) applyCommand() *cli.Command {
	return &cli.Command{
		Name: "apply", Usage: "enforce the policy", ArgsUsage: "[PATH|PLANFILE]",
		Description: `Show the plan, ask, and bring the kernel to what the policy says, in a
transaction that holds nothing but the difference: no packet is judged by a
half-made policy, and if anything fails, the kernel is as it was. Where one
transaction could not keep that promise there is one before it, which adds what
nothing uses yet, and one after it, which removes what nothing uses any more. A
saved plan (sgc plan --out) is carried out without a question, and refused if
the kernel or the policy moved on.

` + paths,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "auto-approve", Usage: "do not ask"},
			&cli.BoolFlag{Name: "verbose", Usage: "also list every operation on the kernel's table, long lists whole, and slow network ACLs"},
			flushFlag(), flowsFlag(),
			&cli.BoolFlag{Name: "force", Usage: "go on even if that cuts the SSH connection which the command runs over"},
			lockTimeoutFlag(),
		},
		Action: func(c *cli.Context) error {
			argument, err := atMostOne(c)
			if err != nil {
				return err
			}
			wait, err := lockWait(c)
			if err != nil {
				return err
			}
			o := applyOptions{AutoApprove: c.Bool("auto-approve"), Force: c.Bool("force"), Verbose: c.Bool("verbose"), LockTimeout: wait}
			if o.Flush, o.Flows, err = liveFlags(c); err != nil {
				return err
			}
			if o.Plan, err = openPlan(argument); err != nil {
				return err
			}
			if o.Plan != nil {
				if c.IsSet(flushName) {
					return fmt.Errorf("a saved plan holds which flows it cuts (--%s %s); leave --%s out", flushName, o.Plan.Flush, flushName)
				}
				o.PlanFile, o.Flush = argument, o.Plan.Flush
				return s.applySaved(c.Context, o)
			}
			if o.Path, err = policyPath(argument); err != nil {
				return err
			}
			return s.apply(c.Context, o, s.inputs())
		},
	}
}

// applySaved carries a saved plan out: the policy is loaded again from where
// the plan was made.
func (s *session) applySaved(ctx context.Context, o applyOptions) error {
	if len(s.Vars) > 0 || len(s.VarFiles) > 0 {
		return errors.New("a saved plan holds its variables; leave --var and --var-file out")
	}
	state, err := s.stateDir()
	if err != nil {
		return err
	}
	if absolute(state) != o.Plan.State {
		return fmt.Errorf("the plan %s was made for another network namespace or state directory (its record is in %s, not in %s)", o.PlanFile, o.Plan.State, absolute(state))
	}
	o.Path = o.Plan.Path
	return s.apply(ctx, o, o.Plan.inputs(s.Environ))
}

// attempts is how often a command looks at the kernel again when somebody else
// changes it at the same time.
const attempts = 10

func (s *session) apply(ctx context.Context, o applyOptions, in policies.Inputs) error {
	loaded, err := s.load(ctx, o.Path, in, o.Verbose)
	if err != nil {
		return err
	}
	return s.change(ctx, o.LockTimeout, func(h *host) error { return s.converge(ctx, h, loaded, o) })
}

// converge makes plans until one of them is committed or nothing is to do.
func (s *session) converge(ctx context.Context, h *host, loaded *policies.Loaded, o applyOptions) error {
	approved := ""
	var p *plan
	for attempt := 1; ; attempt++ {
		// What was found out about live flows a moment ago is still good.
		var known *liveWork
		if p != nil {
			known = p.live
		}
		var err error
		if p, err = s.planAgain(ctx, h, loaded, o, known); err != nil {
			return err
		}
		if o.Plan != nil {
			if err := o.Plan.refuse(o.PlanFile, p); err != nil {
				return err
			}
		}
		if p.empty() {
			if err := h.recordUnchanged(p); err != nil {
				return err
			}
			if _, err := h.setSettings(p.settings); err != nil {
				return err
			}
			s.remember(h, p.delta.After(), p.want)
			return s.showApplied(p, o, false)
		}
		if p.live.cutsSSH && !o.Force {
			return s.refuseSSH(p, o)
		}
		digest := p.work()
		switch {
		case attempt == 1 || digest != approved && o.AutoApprove:
			if !s.JSON {
				if err := s.showPlan(p, o.Verbose, nil); err != nil {
					return err
				}
			}
			if o.Plan == nil && !o.AutoApprove {
				if err := s.approve(ctx, "Apply these changes?", "apply"); err != nil {
					return err
				}
				// That took as long as it took.
				if err := s.addLive(ctx, h.kernel, p, o.Flush, o.Flows, nil); err != nil {
					return err
				}
			}
		case digest != approved:
			return errors.New("the kernel's nftables were changed while you looked at the plan, and it is not what would happen now; nothing was changed. Run sgc apply again")
		}
		approved = digest
		err = s.commit(ctx, h, p)
		var unclean *apply.CleanUpError
		if err == nil || errors.As(err, &unclean) {
			s.changed = "The policy is in force"
		}
		switch {
		case err == nil:
			s.remember(h, p.generation, p.want)
			return s.finish(h, p, o)
		case errors.As(err, &unclean):
			s.inform("%s: %s.", s.errPaint().yellow("Warning"), unclean)
			return s.finish(h, p, o)
		case !errors.Is(err, apply.ErrChanged):
			return err
		case o.Plan != nil:
			return fmt.Errorf("the kernel's nftables were changed since the plan was saved; %s", unchanged(err))
		case attempt == attempts:
			return fmt.Errorf("another program keeps changing the kernel's nftables: gave up after %d attempts, %s", attempts, unchanged(err))
		}
		s.inform("Another program changed the kernel's nftables at the same moment; looking again.")
	}
}

// refuseSSH shows the plan that would cut the connection which the command runs
// over, and returns why it is not carried out.
func (s *session) refuseSSH(p *plan, o applyOptions) error {
	if !s.JSON {
		if err := s.showPlan(p, o.Verbose, nil); err != nil {
			return err
		}
	}
	return fmt.Errorf("this apply would cut the SSH connection that it runs over (%s → %s); nothing was changed. To do it all the same: --force", p.live.ssh.client, p.live.ssh.server)
}

// unchanged says what a commit that failed left.
func unchanged(err error) string {
	var left *apply.LeftoversError
	if errors.As(err, &left) {
		return "what is enforced was not changed. " + left.Error()
	}
	return "nothing was changed"
}

// planAgain looks at the kernel, finishes what an earlier apply left, and
// makes the plan. known is what is known of live flows, or nil.
func (s *session) planAgain(ctx context.Context, h *host, loaded *policies.Loaded, o applyOptions, known *liveWork) (*plan, error) {
	v, err := s.lookFor(ctx, h.kernel, h.dir, loaded.Policy)
	if err != nil {
		return nil, err
	}
	if changed, err := s.settle(ctx, h, v); err != nil {
		return nil, err
	} else if changed {
		if v, err = s.lookFor(ctx, h.kernel, h.dir, loaded.Policy); err != nil {
			return nil, err
		}
	}
	p, err := compute(ctx, func() (*plan, error) { return newPlan(o.Path, loaded.Policy, v) })
	if err != nil {
		return nil, err
	}
	p.diagnostics = loaded.Diagnostics
	return p, s.addLive(ctx, h.kernel, p, o.Flush, o.Flows, known)
}

// finish does what comes after the commit, and says what was done.
func (s *session) finish(h *host, p *plan, o applyOptions) error {
	var err error
	if p.tuned, err = h.setSettings(p.settings); err != nil {
		return fmt.Errorf("the policy in %s is in force, but not its conntrack settings (the next sgc apply sets them): %w", absolute(p.path), err)
	}
	s.warnRefused(p.tuned)
	return s.showApplied(p, o, true)
}

// commit writes the plan ahead, makes the entries that live flows need, sends
// the transaction, does to live flows what the change means for them, and makes
// the record of it. If the kernel refuses, the record is as it was too. Without a
// transaction and work on live flows there is the record alone.
func (s *session) commit(ctx context.Context, h *host, p *plan) error {
	if p.delta.Empty() && p.live.empty() {
		return h.recordUnchanged(p)
	}
	r, err := p.record()
	if err != nil {
		return err
	}
	return h.transact(ctx, r, p.commitDelta(),
		func() error { return s.seedBefore(ctx, p.live) },
		func(dir *apply.Dir) error {
			if err := s.finishLive(context.WithoutCancel(ctx), h, p); err != nil {
				return err
			}
			return dir.Promote()
		})
}

// record returns the record of the plan once it is committed.
func (p *plan) record() (*apply.Record, error) {
	return newRecord(p.path, p.digest, *p.enforced)
}

// recordUnchanged writes down where the policy comes from when the kernel
// needs no transaction but the record is not this policy's: its files moved, a
// description changed, or the state directory was lost.
func (h *host) recordUnchanged(p *plan) error {
	if last := p.sight.last; last != nil {
		// What the last apply did is still what the last apply did.
		p.enforced.Flush, p.enforced.Past, p.enforced.Lost, p.enforced.Restores, p.enforced.Was = last.Flush, last.Past, last.Lost, last.Restores, last.Was
		p.enforced.replaces = nil
	}
	r, err := p.record()
	if err != nil {
		return err
	}
	if was := p.sight.record; was != nil {
		if was.Path == r.Path && slices.Equal(was.Files, r.Files) && sameJSON(was.Policy, r.Policy) {
			return nil
		}
		if was.Digest == r.Digest {
			r.Applied = was.Applied
		}
	}
	if err := h.dir.WriteAhead(r); err != nil {
		return err
	}
	return h.dir.Promote()
}

// sameJSON compares two JSON texts without their white space.
func sameJSON(a, b []byte) bool {
	return bytes.Equal(a, b) || bytes.Equal(compactJSON(a), compactJSON(b))
}

// approve asks a person. Everything but "yes" is a no.
func (s *session) approve(ctx context.Context, question, command string) error {
	if s.JSON {
		return fmt.Errorf("with --json nobody can be asked; add --auto-approve to %s without a question", command)
	}
	if !s.InTerminal {
		return fmt.Errorf("%s asks before it changes anything, and standard input is no terminal; add --auto-approve to %s without a question. Nothing was changed", command, command)
	}
	fmt.Fprintf(s.Err, "%s Only 'yes' is accepted: ", s.errPaint().bold(question))
	answer, err := s.readLine(ctx)
	if err != nil {
		fmt.Fprintln(s.Err)
		return err
	}
	if answer != "yes" {
		s.inform("Not approved, nothing was changed.")
		return errReported
	}
	fmt.Fprintln(s.Err)
	return nil
}

// readLine reads one line of standard input without its white space. The read
// itself cannot be cut off: it is left to the end of the process.
func (s *session) readLine(ctx context.Context) (string, error) {
	line := make(chan string, 1)
	go func() {
		// An answer without a newline, or none, is a line too.
		text, _ := bufio.NewReader(s.In).ReadString('\n')
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		return text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// showApplied says what an apply did.
func (s *session) showApplied(p *plan, o applyOptions, applied bool) error {
	if s.JSON {
		return s.showPlan(p, o.Verbose, &applied)
	}
	if !applied {
		return s.showPlan(p, o.Verbose, nil)
	}
	var b strings.Builder
	if o.Verbose {
		writeTuned(&b, p.tuned)
	}
	fmt.Fprintf(&b, "%s The kernel enforces the policy in %s\n", s.outPaint().green("Applied."), absolute(p.path))
	_, err := s.Out.Write([]byte(b.String()))
	return err
}
