package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sgc/internal/netns"
	"sgc/internal/nflog"
)

// The formats of log.
const (
	formatText    = "text"
	formatJSON    = "json"
	formatFlowLog = "flowlog"
)

func (s *session) logCommand() *cli.Command {
	return &cli.Command{
		Name: "log", Usage: "show refused packets as they come", ArgsUsage: "[PATH]",
		Description: `Show the packets that the kernel refuses on interfaces with a log_denied block,
one a line, until it is interrupted. It reads the nflog groups of the policy that
is enforced, or of the one at PATH (a directory of *.hcl files or one file), or
those that --group names. A group has one reader: a second one is told so.

--format flowlog prints flow log records of version 2,
  version account-id interface-id srcaddr dstaddr srcport dstport protocol
  packets bytes start end action log-status
one for each flow that was refused in an interval. The action is REJECT and the
account "-"; an interface block without refused packets has a record of status
NODATA, and one of SKIPDATA where packets came faster than they were read.

The rate of log_denied decides how many packets are told of at all. Those above
it are refused, too, and no format counts them.`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "group", Usage: "read the nflog group `N` instead of the policy's; may be repeated"},
			&cli.StringFlag{Name: "format", Usage: "print `FORMAT`: text (default), json, one object a line, or flowlog"},
			&cli.DurationFlag{Name: "interval", Value: defaultInterval, Usage: "sum up the flows of so long a time with --format flowlog, `DURATION` (default 60s)"},
			&cli.IntFlag{Name: "count", Usage: "end after `N` packets"},
			&cli.DurationFlag{Name: "for", Usage: "end after `DURATION`"},
		},
		Action: func(c *cli.Context) error {
			argument, err := atMostOne(c)
			if err != nil {
				return err
			}
			o, err := s.logOptions(c)
			if err != nil {
				return err
			}
			o.Path = argument
			return s.log(c.Context, o)
		},
	}
}

// logOptions say what log is to do; the zero values of Count and For are no
// limit.
type logOptions struct {
	Path     string
	Groups   []uint16
	Format   string
	Interval time.Duration
	Count    int
	For      time.Duration
}

func (s *session) logOptions(c *cli.Context) (logOptions, error) {
	o := logOptions{Format: c.String("format"), Interval: c.Duration("interval"), Count: c.Int("count"), For: c.Duration("for")}
	if s.JSON {
		if o.Format != "" && o.Format != formatJSON {
			return o, fmt.Errorf("--json and --format %s contradict each other", o.Format)
		}
		o.Format = formatJSON
	}
	switch o.Format {
	case "":
		o.Format = formatText
	case formatText, formatJSON, formatFlowLog:
	default:
		names := []string{formatText, formatJSON, formatFlowLog}
		message := fmt.Sprintf("unknown format %q; it is one of %s", o.Format, strings.Join(names, ", "))
		if n := nearest(o.Format, names); n != "" {
			message += fmt.Sprintf(". Did you mean %q?", n)
		}
		return o, errors.New(message)
	}
	switch {
	case o.Format != formatFlowLog && c.IsSet("interval"):
		return o, errors.New("--interval belongs to --format flowlog; the other formats print every packet at once")
	case o.Interval < time.Second:
		return o, fmt.Errorf("the interval %s is shorter than a second, in which flow logs count", o.Interval)
	case c.IsSet("count") && o.Count < 1:
		return o, fmt.Errorf("--count takes a number above zero, not %d", o.Count)
	case c.IsSet("for") && o.For <= 0:
		return o, fmt.Errorf("--for takes a time above zero, not %s", o.For)
	}
	for _, text := range c.StringSlice("group") {
		g, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return o, fmt.Errorf("there is no nflog group %q: groups are numbered from 0 to 65535", text)
		}
		o.Groups = append(o.Groups, uint16(g))
	}
	slices.Sort(o.Groups)
	o.Groups = slices.Compact(o.Groups)
	return o, nil
}

func (s *session) log(ctx context.Context, o logOptions) (err error) {
	from, err := s.logSource(ctx, o)
	if err != nil {
		return err
	}
	config := nflog.Config{Groups: from.groups}
	if s.Netns != "" {
		ns, err := netns.Open(s.Netns)
		if err != nil {
			return err
		}
		defer ns.Close() // it was only looked into
		config.NetNS = int(ns.Fd())
	}
	conn, err := nflog.Open(config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if o.For > 0 {
		limited, cancel := context.WithTimeout(ctx, o.For)
		defer cancel()
		ctx = limited
	}
	s.inform("Reading %s.", from)
	r := logReader{session: s, conn: conn, left: o.Count, view: newLogView(o, from.blocks, time.Now())}
	return r.run(ctx)
}

// newLogView returns the view of a format that begins at a time.
func newLogView(o logOptions, blocks []string, begin time.Time) logView {
	switch o.Format {
	case formatJSON:
		return logObjects{}
	case formatFlowLog:
		return newFlowLog(blocks, o.Interval, begin)
	default:
		return newLogLines(blocks)
	}
}
