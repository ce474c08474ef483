package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"sgc/apply"
)

func (s *session) destroyCommand() *cli.Command {
	return &cli.Command{
		Name: "destroy", Usage: "stop enforcing anything",
		Description: `Remove the table inet sgc in one transaction, and the record of it. Every
packet passes then, as far as sgc is concerned.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "auto-approve", Usage: "do not ask"},
			lockTimeoutFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := none(c); err != nil {
				return err
			}
			wait, err := lockWait(c)
			if err != nil {
				return err
			}
			return s.destroy(c.Context, c.Bool("auto-approve"), wait)
		},
	}
}

// destroyView is the JSON form of destroy.
type destroyView struct {
	FormatVersion int  `json:"format_version"`
	Destroyed     bool `json:"destroyed"`
}

func (s *session) destroy(ctx context.Context, autoApprove bool, wait time.Duration) error {
	nothing, err := s.nothingToDestroy(ctx)
	if err != nil {
		return err
	}
	if nothing {
		return s.showDestroyed(false)
	}
	return s.change(ctx, wait, func(h *host) error {
		for attempt := 1; ; attempt++ {
			v, err := s.look(ctx, h.kernel, h.dir)
			if err != nil {
				return err
			}
			if err := s.settle(h.dir, v); err != nil {
				return err
			}
			if v.snapshot.Table == nil {
				if err := h.dir.Remove(); err != nil {
					return err
				}
				return s.showDestroyed(false)
			}
			if attempt == 1 && !autoApprove {
				s.inform("The table inet sgc will be removed: %s. Nothing is filtered then.", countTable(v.snapshot.Table))
				if err := s.approve(ctx, "Remove it?", "destroy"); err != nil {
					return err
				}
			}
			delta, err := apply.Diff(v.snapshot, nil)
			if err != nil {
				return err
			}
			r, err := newRecord("", "", enforced{})
			if err != nil {
				return err
			}
			err = h.transact(ctx, r, delta, (*apply.Dir).Remove)
			switch {
			case err == nil:
				s.changed = "The table inet sgc is removed"
				return s.showDestroyed(true)
			case !errors.Is(err, apply.ErrChanged):
				return err
			case attempt == attempts:
				return fmt.Errorf("another program keeps changing the kernel's nftables: gave up after %d attempts, nothing was changed", attempts)
			}
		}
	})
}

// nothingToDestroy reports whether there is neither a table nor a state
// directory: then none is made only to be removed.
func (s *session) nothingToDestroy(ctx context.Context) (nothing bool, err error) {
	dir, err := s.existingDir()
	if err != nil || dir != nil {
		return false, err
	}
	k, err := apply.Open(s.Netns)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	v, err := s.look(ctx, k, nil)
	if err != nil {
		return false, err
	}
	return v.snapshot.Table == nil, nil
}

func (s *session) showDestroyed(destroyed bool) error {
	if s.JSON {
		return s.writeJSON(destroyView{formatVersion, destroyed})
	}
	text := "Nothing is enforced, nothing to remove."
	if destroyed {
		text = "The table inet sgc is removed. Nothing is enforced any more."
	}
	_, err := fmt.Fprintln(s.Out, text)
	return err
}
