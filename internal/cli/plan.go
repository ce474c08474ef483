package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/urfave/cli/v2"

	"sgc/apply"
	"sgc/compile"
	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// planOptions are the flags of plan.
type planOptions struct {
	Path string
	// Out is the file that the plan is saved to, "" for none.
	Out string
	// DetailedExit makes changes an exit code of 2.
	DetailedExit bool
	Verbose      bool
	// Flush says which live flows an apply would cut, Flows how many are shown.
	Flush conntrack.FlushMode
	Flows int
}

func (s *session) planCommand() *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "show what an apply would change", ArgsUsage: "[PATH]",
		Description: `Compare the policy with what the kernel enforces and show the difference:
what the policy changes, and what was changed behind its back (drift). Changes
nothing, neither in the kernel nor on disk.

` + paths,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "save the plan to `FILE`, for sgc apply FILE"},
			&cli.BoolFlag{Name: "detailed-exitcode", Usage: "exit with 2 if there are changes"},
			&cli.BoolFlag{Name: "verbose", Usage: "also list every operation on the kernel's table, long lists whole, and slow network ACLs"},
			flushFlag(), flowsFlag(),
		},
		Action: func(c *cli.Context) error {
			argument, err := atMostOne(c)
			if err != nil {
				return err
			}
			flush, flows, err := liveFlags(c)
			if err != nil {
				return err
			}
			if c.IsSet("out") && c.String("out") == "" {
				return errors.New("the path of --out is empty")
			}
			path, err := policyPath(argument)
			if err != nil {
				return err
			}
			return s.planOnly(c.Context, planOptions{
				Path: path, Out: c.String("out"),
				DetailedExit: c.Bool("detailed-exitcode"), Verbose: c.Bool("verbose"),
				Flush: flush, Flows: flows,
			})
		},
	}
}

// plan is what one apply would do.
type plan struct {
	path   string
	policy *policies.Policy
	digest string
	// conntrack is the compiler's environment.
	conntrack map[flow.Family]string
	sight     *sight
	want      *ruleset.Table
	delta     *apply.Delta
	// changes are the policy's, against the policy that is enforced; nil if
	// there is no record of that one, see unrecorded.
	changes []policies.Change
	// unrecorded is set where the kernel has a table, but nobody wrote down
	// which policy it stands for.
	unrecorded bool
	// objects stand for changes in an unrecorded table.
	objects []objectRow
	drift   []drifted
	// restores says that some of the drift is in the kernel's table.
	restores bool
	// settings are what happens to the host's conntrack settings, tuned what an
	// apply did about it.
	settings *settingsPlan
	tuned    []conntrack.Tuned
	// enforced is what the record will say.
	enforced *enforced
	// live is what happens to live flows; nil until it is found out.
	live *liveWork
	// cutting is the table that is committed first, if the commit has to cut flows
	// of which conntrack has entries: want, and the rules that do so. switching is
	// the delta to it, and of timed elements; nil if delta is all.
	cutting   *ruleset.Table
	switching *apply.Delta
	// generation is that of nf_tables after the apply.
	generation uint32
	notes      []string
	// warnings are of what makes the policy moot.
	warnings []warning
	// diagnostics are the warnings of the policy.
	diagnostics hcl.Diagnostics
}

// empty reports whether an apply would neither send a transaction nor change a
// setting nor touch a live flow.
func (p *plan) empty() bool { return p.delta.Empty() && p.settings.empty() && p.live.empty() }

// work stands for all that an apply would do: two plans with the same do the
// same.
func (p *plan) work() string { return p.delta.Digest() + "\n" + p.settings.text() }

// addSettings plans the host's conntrack settings.
func (p *plan) addSettings() {
	p.settings = planSettings(p.sight.settings, conntrack.Wanted(p.policy), true)
	p.changes = withoutSettings(p.changes, p.settings)
	p.drift = append(p.drift, p.settings.drift(p.sight.snapshot.Table == nil)...)
	p.notes = append(p.notes, p.settings.notes()...)
	if p.sight.last != nil && p.sight.last.Policy != p.policy {
		p.notes = append(p.notes, ownTimeoutNotes(p.sight.last.Policy, p.policy)...)
	}
}

func (s *session) planOnly(ctx context.Context, o planOptions) (err error) {
	if o.Out != "" {
		if err := mayHoldPlan(o.Out); err != nil {
			return err
		}
	}
	loaded, err := s.load(ctx, o.Path, s.inputs(), o.Verbose)
	if err != nil {
		return err
	}
	k, err := apply.Open(s.Netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	dir, err := s.existingDir()
	if err != nil {
		return err
	}
	v, err := s.lookFor(ctx, k, dir, loaded.Policy)
	if err != nil {
		return err
	}
	s.explainPending(v)
	p, err := compute(ctx, func() (*plan, error) { return newPlan(o.Path, loaded.Policy, v) })
	if err != nil {
		return err
	}
	p.diagnostics = loaded.Diagnostics
	if err := s.addLive(ctx, k, p, o.Flush, o.Flows, nil); err != nil {
		return err
	}
	if o.Out != "" {
		if err := s.savePlan(o.Out, p); err != nil {
			return err
		}
	}
	if err := s.showPlan(p, o.Verbose, nil); err != nil {
		return err
	}
	if o.Out != "" {
		s.inform("The plan is saved. To carry it out: sgc apply %s", shellWord(o.Out))
	}
	if o.DetailedExit && !p.empty() {
		return errDifferent
	}
	return nil
}

// newPlan compares a policy with what was found on the host.
func newPlan(path string, policy *policies.Policy, v *sight) (*plan, error) {
	p := &plan{
		path: path, policy: policy,
		conntrack: environment(v.snapshot.Foreign), sight: v,
		notes: conntrackNotes(policy, v), warnings: warningsOf(policy, &v.snapshot.Around, v.surroundings),
	}
	if m := v.made; m != nil && m.Policy == policy && maps.Equal(m.Conntrack, p.conntrack) {
		p.want = m.table()
	} else {
		p.want = compile.Compile(policy, compile.Environment{Conntrack: p.conntrack})
	}
	p.digest = digestWanted(p.want)
	p.enforced = &enforced{Policy: policy, By: versionText(), Conntrack: p.conntrack}
	var err error
	if p.delta, err = apply.Diff(v.snapshot, p.want); err != nil {
		return nil, fmt.Errorf("compare the kernel's table with the policy: %w", err)
	}
	if v.last == nil {
		if !enforces(v.snapshot.Table) {
			p.changes = policies.Compare(nil, policy)
			p.notes = append(p.notes, leftoverNotes(v.snapshot.Table)...)
		} else {
			p.unrecorded, p.objects = true, objectRows(p.delta)
		}
		p.addSettings()
		return p, nil
	}
	if v.last.Policy != policy {
		p.changes = policies.Compare(v.last.Policy, policy)
	}
	if p.want == v.last.table() {
		p.drift = driftOf(p.delta, p.want)
	} else if p.drift, err = findDrift(v); err != nil {
		return nil, err
	}
	p.restores = len(p.drift) > 0
	p.notes = append(p.notes, versionNote(v, p.drift)...)
	p.addSettings()
	return p, nil
}

// findDrift compares the kernel's table with the one that the record says was
// committed. There is none without a record.
func findDrift(v *sight) ([]drifted, error) {
	if v.last == nil {
		return nil, nil
	}
	committed := v.last.table()
	delta, err := apply.Diff(v.snapshot, committed)
	if err != nil {
		return nil, fmt.Errorf("compare the kernel's table with the record: %w", err)
	}
	return driftOf(delta, committed), nil
}

// versionNote warns where drift may be nobody's deed.
func versionNote(v *sight, drift []drifted) []string {
	if len(drift) == 0 || v.snapshot.Table == nil || v.last.By == versionText() {
		return nil
	}
	return []string{fmt.Sprintf("the policy was applied by sgc %s, and this is sgc %s: some of the drift may be a difference between the two", v.last.By, versionText())}
}

// existingDir opens the state directory for reading; it is nil where there is
// none, since a command that changes nothing makes no directory.
func (s *session) existingDir() (*apply.Dir, error) {
	path, err := s.stateDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err := trust(s.StateDir, path); err != nil {
		return nil, err
	}
	return apply.OpenDir(path)
}
