package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sgc/apply"
	"sgc/conntrack"
	"sgc/internal/netns"
	"sgc/policies"
)

const conntrackUsage = "sgc conntrack stats|list|explain|flush|tune [flags] [PATH]"

// The commands below conntrack.
const (
	conntrackStats   = "stats"
	conntrackList    = "list"
	conntrackExplain = "explain"
	conntrackFlush   = "flush"
	conntrackTune    = "tune"
)

// conntrackFlags says to which of the commands a flag belongs.
var conntrackFlags = map[string][]string{
	"prometheus": {conntrackStats},
	"interface":  {conntrackList, conntrackExplain, conntrackFlush},
	"group":      {conntrackList, conntrackExplain, conntrackFlush},
	"rule":       {conntrackList, conntrackExplain, conntrackFlush},
	"class":      {conntrackList, conntrackExplain, conntrackFlush},
	"protocol":   {conntrackList, conntrackExplain, conntrackFlush},
	"cidr":       {conntrackList, conntrackExplain, conntrackFlush},
	"port":       {conntrackList, conntrackExplain, conntrackFlush},
	"revoked":    {conntrackList, conntrackExplain, conntrackFlush},
	"count":      {conntrackList},
	"verbose":    {conntrackList},
	"all":        {conntrackFlush},
	"existing":   {conntrackTune},
	approveFlag:  {conntrackFlush, conntrackTune},
	forceFlag:    {conntrackFlush},
}

const (
	approveFlag = "auto-approve"
	forceFlag   = "force"
)

func (s *session) conntrackCommand() *cli.Command {
	return &cli.Command{
		Name: "conntrack", Usage: "show, explain, delete and tune live flows (stats, list, explain, flush, tune)", ArgsUsage: "COMMAND",
		Description: `COMMAND is one of the following, and PATH may stand behind it. They look at the
kernel's connection tracking as a policy sees it: the one at PATH, or without it
the one that is enforced.

stats   how full the table is, what was dropped, and how many flows of which
        class cross each interface; without a policy, the first two alone
list    the entries of flows that cross the policy's interfaces: the class of each,
        the rule that allows it now, and when it ends unless a packet comes. It
        streams: a million flows need no more memory than one. Flows of protocols
        that sgc tracks by itself (GRE, ESP, SCTP, …) are there without entries, too
explain why the flows are as they are, in sentences: their class, the rules that
        allow them now or did before, why one is alive although no rule allows
        it, the timeout that its next packet gives it, what a network ACL does to
        it, and what would cut it. Flows of the host's sockets that have no entry
        are there, too. With PATH, it also says what an apply of it would do.
        list --verbose says the same of entries alone
flush   delete what the flags choose, after a question. An open flow of which a
        rule allows the next packet goes on with a new entry, and its peers
        notice nothing; so do UDP and ping. A tracked TCP connection is cut,
        since a new one begins with a SYN; the SSH connection that the command
        runs over is not, unless --force says so. Of protocols that sgc tracks by
        itself, it also forgets the flows
tune    set the timeouts and the limit that the policy asks for, after a
        question; --existing also shortens flows that are there already

A flow is tracked (it goes on until it is idle, whatever becomes of its rule),
open (untracked in the policy's sense: it ends with its rule) or exempt (never
filtered). A routed flow has a line for each of the policy's interfaces that it
crosses. Flags that choose must all be true of one of these lines; a flag that is
given several times means any of its values.

` + paths,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "interface", Usage: "choose flows on the interface `NAME`, or on all that begin alike (eth*)"},
			&cli.StringSliceFlag{Name: "group", Usage: "choose flows that a rule of the security group `NAME` allows now"},
			&cli.StringSliceFlag{Name: "rule", Usage: "choose flows that the rule at `ADDRESS` allows now (security_group.web.ingress.ssh)"},
			&cli.StringSliceFlag{Name: "class", Usage: "choose flows of `CLASS`: tracked, open or exempt"},
			&cli.StringSliceFlag{Name: "protocol", Usage: "choose flows of `PROTOCOL`: tcp, udp, icmp, a number, …"},
			&cli.StringSliceFlag{Name: "cidr", Usage: "choose flows whose peer is in `CIDR`, or has that address"},
			&cli.StringSliceFlag{Name: "port", Usage: "choose TCP and UDP flows to the port `N`, or to a range of ports (8000-8099)"},
			&cli.BoolFlag{Name: "revoked", Usage: "choose flows that no rule allows any more"},
			&cli.BoolFlag{Name: "all", Usage: "flush: choose every flow that crosses the policy's interfaces"},
			&cli.BoolFlag{Name: "count", Usage: "list: print how many there are, and nothing else"},
			&cli.BoolFlag{Name: "verbose", Usage: "list: explain each"},
			&cli.BoolFlag{Name: "prometheus", Usage: "stats: print the text format of Prometheus"},
			&cli.BoolFlag{Name: "existing", Usage: "tune: also shorten flows that are there already"},
			&cli.BoolFlag{Name: approveFlag, Usage: "flush, tune: do not ask"},
			&cli.BoolFlag{Name: forceFlag, Usage: "flush: go on even if that cuts the SSH connection which the command runs over"},
		},
		Action: func(c *cli.Context) error {
			command, path, err := conntrackArguments(c)
			if err != nil {
				return err
			}
			switch command {
			case conntrackStats:
				return s.conntrackStats(c.Context, path, c.Bool("prometheus"))
			case conntrackTune:
				return s.conntrackTune(c.Context, path, c.Bool("existing"), c.Bool(approveFlag))
			}
			choice, err := readChoice(c)
			if err != nil {
				return err
			}
			switch count, verbose := c.Bool("count"), c.Bool("verbose"); {
			case count && verbose:
				return errors.New("--count and --verbose contradict each other")
			case command == conntrackExplain:
				return s.conntrackExplain(c.Context, path, choice)
			case command == conntrackList && verbose:
				return s.listExplained(c.Context, path, choice)
			case command == conntrackList:
				return s.conntrackList(c.Context, path, choice, count)
			}
			return s.conntrackFlush(c.Context, path, flushOptions{choice: choice, all: c.Bool("all"), autoApprove: c.Bool(approveFlag), force: c.Bool(forceFlag)})
		},
	}
}

// conntrackArguments returns which of the commands is meant, and the policy's
// path, "" for that which is enforced.
func conntrackArguments(c *cli.Context) (command, path string, err error) {
	all := []string{conntrackStats, conntrackList, conntrackExplain, conntrackFlush, conntrackTune}
	arguments := c.Args().Slice()
	if len(arguments) == 0 {
		return "", "", errors.New("what is to be done with conntrack? " + conntrackUsage)
	}
	command = arguments[0]
	switch {
	case !slices.Contains(all, command):
		message := fmt.Sprintf("conntrack knows no %q: %s", command, conntrackUsage)
		if n := nearest(command, all); n != "" {
			message = fmt.Sprintf("conntrack knows no %q. Did you mean %q?", command, n)
		}
		return "", "", errors.New(message)
	case len(arguments) > 2:
		return "", "", fmt.Errorf("conntrack %s takes one path, not %d: %s", command, len(arguments)-1, strings.Join(arguments[1:], " "))
	case len(arguments) == 2 && arguments[1] == "":
		return "", "", errors.New("the path is empty")
	case len(arguments) == 2:
		path = arguments[1]
	}
	for _, name := range c.LocalFlagNames() {
		if of, ok := conntrackFlags[name]; ok && !slices.Contains(of, command) {
			return "", "", fmt.Errorf("the flag --%s is not for conntrack %s, but for conntrack %s", name, command, someNames(of))
		}
	}
	return command, path, nil
}

// tracking is what a command needs that looks at entries with a policy.
type tracking struct {
	table  *conntrack.Table
	routes *conntrack.Routes
	policy *policies.Policy
	// index is that of the policy.
	index *policies.Judge
	judge *conntrack.Judge
}

// withTable opens the namespace's conntrack for f.
func (s *session) withTable(f func(*conntrack.Table) error) error {
	fd := 0
	if s.Netns != "" {
		ns, err := netns.Open(s.Netns)
		if err != nil {
			return err
		}
		defer ns.Close() // it was only looked into
		fd = int(ns.Fd())
	}
	table, err := conntrack.Open(fd)
	if err != nil {
		return err
	}
	return errors.Join(f(table), table.Close())
}

// withTracking opens the namespace's conntrack for f, and a judge of the policy.
func (s *session) withTracking(ctx context.Context, p *policies.Policy, f func(*tracking) error) error {
	return s.withTable(func(table *conntrack.Table) error {
		routes, err := table.Routes()
		if err != nil {
			return err
		}
		openers, err := table.Openers(ctx)
		if err != nil && !errors.Is(err, conntrack.ErrNoSockets) {
			return errors.Join(err, routes.Close())
		}
		routes.Heed(openers)
		t := &tracking{table: table, routes: routes, policy: p, index: policies.NewJudge(p)}
		t.judge = conntrack.NewJudge(t.index, routes)
		return errors.Join(f(t), routes.Close())
	})
}

// knownPolicy returns the policy at the path, or the one that is enforced. It
// is nil if there is neither.
func (s *session) knownPolicy(ctx context.Context, path string) (*policies.Policy, error) {
	if path != "" {
		// Whether all of it can be enforced does not matter here.
		loaded, err := s.loadPolicy(ctx, path, s.inputs())
		if err != nil {
			return nil, err
		}
		if err := s.report(loaded); err != nil {
			return nil, err
		}
		return loaded.Policy, nil
	}
	dir, err := s.existingDir()
	if err != nil || dir == nil {
		return nil, err
	}
	r, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	var last *enforced
	if r.pending == nil {
		last, err = read(r.applied)
	} else {
		last, err = s.lastOfTwo(ctx, dir)
	}
	if err != nil || last == nil {
		return nil, err
	}
	return last.Policy, nil
}

// lastOfTwo finds out whether the kernel enforces the policy that was applied
// last, or the one of an apply that did not live to its end.
func (s *session) lastOfTwo(ctx context.Context, dir *apply.Dir) (last *enforced, err error) {
	k, err := apply.Open(s.Netns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	found, err := s.look(ctx, k, dir)
	if err != nil {
		return nil, err
	}
	s.explainPending(found)
	return found.last, nil
}

// neededPolicy is knownPolicy for commands that do nothing without one.
func (s *session) neededPolicy(ctx context.Context, path, command string) (*policies.Policy, error) {
	p, err := s.knownPolicy(ctx, path)
	if err == nil && p == nil {
		err = noPolicy(command)
	}
	return p, err
}

func noPolicy(command string) error {
	return fmt.Errorf("there is no record of an enforced policy: name one, sgc conntrack %s PATH", command)
}

// explainTorn tells of a torn reading, which is no failure of a command that
// only shows; any other error stays.
func (s *session) explainTorn(err error) error {
	if !errors.Is(err, conntrack.ErrTorn) {
		return err
	}
	s.inform("%s", capitalised(conntrack.ErrTorn.Error())+".")
	return nil
}
