package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/lab"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// labOptions are the flags of lab run.
type labOptions struct {
	Path string
	// All sends and shows every packet that the policy suggests.
	All bool
	// Table also prints what was loaded.
	Table bool
	// meddle, if not nil, is called between apply and packets: a test makes
	// the kernel differ from the policy there.
	meddle func(host *lab.Namespace) error
}

const labRunUsage = "sgc lab run [--all] [--table] [PATH], or sgc lab run [--speed N] [--parallel N] [--junit FILE] [--report FILE] SCENARIO…"

func (s *session) labCommand() *cli.Command {
	return &cli.Command{
		Name: "lab", Usage: "try a policy with real packets in a private network", ArgsUsage: "run|clean [PATH…]",
		Description: `Build a private network of namespaces, load the policy into the kernel there,
send real packets, and show which of them passed. The packets are made from the
policy: what each rule allows, and what stands just beside it. This machine's
own network is not touched, and nothing is left behind.

PATH may also be scenarios (*.lab.hcl), or directories that hold some: hosts,
policies, and steps that apply them while traffic flows, each with what is
expected of the traffic. All of them are played.

Needs no root where the system lets users make user namespaces. The exit status
is 2 if the kernel did not do what the policy says, or a scenario expects.

lab clean removes what runs that were killed left in the directory of temporary
files.

` + paths,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "send and show every packet that the policy suggests"},
			&cli.BoolFlag{Name: "table", Usage: "also print the table that was loaded, as an nft script"},
		}, scenarioFlags()...),
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			switch {
			case len(words) == 0:
				return errors.New("what shall the lab do? It knows run and clean: " + labRunUsage)
			case words[0] == "clean":
				return s.labClean(words[1:])
			case words[0] != "run":
				return fmt.Errorf("the lab does not know %q, only run and clean: %s", words[0], labRunUsage)
			case s.Netns != "":
				return errors.New("lab run makes network namespaces of its own; leave --netns out")
			}
			return s.inOrder(c.Context, func(ctx context.Context) error {
				o, err := s.scenarioOptions(c, words[1:])
				if err != nil {
					return s.notBegun(ctx, o, junitOfError(o.Files, err), err)
				}
				if len(o.Files) > 0 {
					return s.labScenarios(ctx, o)
				}
				path, err := labPath(words[1:])
				if err != nil {
					return err
				}
				return s.labRun(ctx, labOptions{Path: path, All: c.Bool("all"), Table: c.Bool("table")})
			})
		},
	}
}

// labPath returns the policy that the arguments of lab run name.
func labPath(arguments []string) (string, error) {
	switch {
	case len(arguments) > 1:
		return "", fmt.Errorf("lab run takes one policy, not %d, or any number of scenarios: %s", len(arguments), strings.Join(arguments, " "))
	case len(arguments) == 1:
		return policyPath(arguments[0])
	}
	return policyPath("")
}

// arguments returns the command line for a second run in a user namespace.
func (o labOptions) arguments(g globals) []string {
	args := []string{"lab", fmt.Sprintf("--all=%t", o.All), fmt.Sprintf("--table=%t", o.Table)}
	for _, v := range g.Vars {
		args = append(args, "--var="+v)
	}
	for _, f := range g.VarFiles {
		args = append(args, "--var-file="+f)
	}
	return append(args, fmt.Sprintf("--json=%t", g.JSON), fmt.Sprintf("--no-color=%t", g.NoColor), "--", "run", o.Path)
}

// labRun tries the policy, in a user namespace if that is needed.
func (s *session) labRun(ctx context.Context, o labOptions) error {
	if !lab.MayMakeNamespaces() {
		return s.labAgain(ctx, o)
	}
	policy, err := s.loadEnforceable(ctx, o.Path, s.inputs())
	if err != nil {
		return err
	}
	report, err := s.tryPolicy(ctx, policy, o)
	if err != nil {
		return err
	}
	if s.JSON {
		var view *labView
		if view, err = report.view(); err == nil {
			err = s.writeJSON(view)
		}
	} else {
		err = s.showLab(report)
	}
	if err != nil {
		return err
	}
	switch c := report.count(); {
	case c.Disagreements > 0:
		return errDifferent
	case c.Lost > 0:
		return fmt.Errorf("%s could not be tried", plural(c.Lost, "packet"))
	}
	return nil
}

// labAgain runs the command as root of a user namespace.
func (s *session) labAgain(ctx context.Context, o labOptions) error {
	// A mistake in the policy is worth knowing whatever the system allows.
	loaded, err := s.loadPolicy(ctx, o.Path, s.inputs())
	if err != nil {
		return err
	}
	if loaded.Policy == nil {
		_, err := s.loadEnforceable(ctx, o.Path, s.inputs())
		return err
	}
	return s.runAgain(ctx, o.arguments(s.globals))
}

// runAgain runs sgc with the arguments as root of a user namespace.
func (s *session) runAgain(ctx context.Context, args []string) error {
	if lab.InUserNamespace(s.Environ) {
		return noNamespaces(errors.New("a user namespace has no rights here"))
	}
	out := s.Out
	if s.out != nil {
		// The terminal itself, for colour.
		out = s.out.w
	}
	code, err := lab.RunInUserNamespace(ctx, lab.Rerun{
		Args: args, Env: s.Environ, Stdin: s.In, Stdout: out, Stderr: s.Err,
	})
	switch {
	case errors.Is(err, lab.ErrNoUserNamespace):
		return noNamespaces(err)
	case err != nil:
		return err
	case code == exitOK:
		return nil
	case code == exitDifferent:
		return errDifferent
	}
	return errReported
}

// noNamespaces says what somebody can do whom the system gives no namespaces.
func noNamespaces(err error) error {
	setting, advice := lab.WhyNoNamespaces()
	if setting == "" {
		return fmt.Errorf("the lab needs network namespaces, which this system gives to nobody but root (%w). Run the command as root: sudo sgc lab run. In a container, start that with more rights, such as docker run --privileged", cause(err))
	}
	return fmt.Errorf("the lab needs network namespaces, which this system gives to nobody but root (%s). Run the command as root: sudo sgc lab run. Or let users make them: sudo sysctl -w %s", setting, advice)
}

// labReport is what a run of the lab found.
type labReport struct {
	path       string
	interfaces []labInterface
	// unseen counts the interfaces of the policy that were left out.
	unseen int
	// table is what was committed, loaded the count of what the kernel then
	// held.
	table           *ruleset.Table
	loaded          tableView
	messages, bytes int
	transactions    string
	withTable       bool
	results         []labResult
	// more counts the examples that were not sent.
	more int
	// drift is how the kernel's table differs from the committed one, looked
	// for where packets did not do what the policy says.
	drift []drifted
}

// maxLabInterfaces is how many interfaces the lab's host has, unless all are
// asked for.
const maxLabInterfaces = 6

// tryPolicy builds the private network, loads the policy and sends packets.
func (s *session) tryPolicy(ctx context.Context, policy *policies.Policy, o labOptions) (_ *labReport, err error) {
	r := &labReport{path: o.Path, withTable: o.Table}
	if r.interfaces, err = labInterfaces(policy); err != nil {
		return nil, err
	}
	if n := len(r.interfaces); n > maxLabInterfaces && !o.All {
		r.interfaces, r.unseen = r.interfaces[:maxLabInterfaces], n-maxLabInterfaces
	}
	stand, err := newLabStand(r.interfaces)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stand.Close()) }()
	k, err := apply.Open(stand.Host.Path())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	if err := r.load(ctx, k, policy); err != nil {
		return nil, err
	}
	if o.meddle != nil {
		if err := o.meddle(stand.Host); err != nil {
			return nil, err
		}
	}
	examples := newGallery(policy, r.interfaces, stand.Possible).examples
	if !o.All {
		all := len(examples)
		examples = choose(examples)
		r.more = all - len(examples)
	}
	if err := r.send(ctx, stand, policy, examples); err != nil {
		return nil, err
	}
	if r.count().Disagreements > 0 {
		if err := r.findDrift(ctx, k); err != nil {
			return nil, err
		}
	}
	return r, ctx.Err()
}

// newLabStand makes the host with its interfaces and addresses.
func newLabStand(interfaces []labInterface) (*lab.Stand, error) {
	var names []string
	var local []netip.Prefix
	for _, i := range interfaces {
		names = append(names, i.name)
		for _, a := range i.host {
			local = append(local, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.SortFunc(local, netip.Prefix.Compare)
	return lab.NewStand(slices.Compact(local), names...)
}

// load makes the policy that of the lab's kernel.
func (r *labReport) load(ctx context.Context, k *apply.Kernel, policy *policies.Policy) error {
	have, err := k.Snapshot(ctx, nil)
	if err != nil {
		return err
	}
	r.table = compile.Compile(policy, compile.Environment{Conntrack: environment(have.Foreign)})
	delta, err := apply.Diff(have, r.table)
	if err != nil {
		return fmt.Errorf("compare the kernel's table with the policy: %w", err)
	}
	r.messages, r.bytes, r.transactions = delta.Messages(), delta.Bytes(), transactions(delta)
	if err := k.Commit(ctx, delta); err != nil {
		return err
	}
	now, err := k.Snapshot(ctx, nil)
	if err != nil {
		return err
	}
	if now.Table == nil {
		return errors.New("the table inet sgc is not there after its commit")
	}
	r.loaded = countTable(now.Table)
	return nil
}

// findDrift looks whether the kernel's table is still the one that was
// committed.
func (r *labReport) findDrift(ctx context.Context, k *apply.Kernel) error {
	now, err := k.Snapshot(ctx, nil)
	if err != nil {
		return err
	}
	delta, err := apply.Diff(now, r.table)
	if err != nil {
		return fmt.Errorf("compare the kernel's table with the policy: %w", err)
	}
	r.drift = driftOf(delta, r.table)
	return nil
}
