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
	// Settings are those of the host's conntrack that went back to what sgc
	// found.
	Settings []settingView `json:"settings"`
}

func (s *session) destroy(ctx context.Context, autoApprove bool, wait time.Duration) error {
	nothing, err := s.nothingToDestroy(ctx)
	if err != nil {
		return err
	}
	if nothing {
		return s.showDestroyed(false, nil)
	}
	return s.change(ctx, wait, func(h *host) error {
		for attempt := 1; ; attempt++ {
			v, err := s.look(ctx, h.kernel, h.dir)
			if err != nil {
				return err
			}
			if changed, err := s.settle(ctx, h, v); err != nil {
				return err
			} else if changed {
				if v, err = s.look(ctx, h.kernel, h.dir); err != nil {
					return err
				}
			}
			settings := planSettings(v.settings, nil, true)
			if attempt == 1 {
				if err := s.approveDestroy(ctx, v, settings, autoApprove); err != nil {
					return err
				}
			}
			if v.snapshot.Table == nil {
				if err := h.dir.Remove(); err != nil {
					return err
				}
				return s.giveBack(h, settings, false, autoApprove)
			}
			delta, err := apply.Diff(v.snapshot, nil)
			if err != nil {
				return err
			}
			r, err := newRecord("", "", enforced{})
			if err != nil {
				return err
			}
			err = h.transact(ctx, r, delta, nil, (*apply.Dir).Remove)
			switch {
			case err == nil:
				s.changed = "The table inet sgc is removed"
				return s.giveBack(h, settings, true, autoApprove)
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

// approveDestroy asks whether the table is to be removed and the settings are
// to go back, if there is either.
func (s *session) approveDestroy(ctx context.Context, v *sight, settings *settingsPlan, autoApprove bool) error {
	if autoApprove || v.snapshot.Table == nil && settings.empty() {
		return nil
	}
	question := "Bring them back?"
	if v.snapshot.Table != nil {
		question = "Remove it?"
		s.inform("The table inet sgc will be removed: %s. Nothing is filtered then.", countTable(v.snapshot.Table))
	}
	if !settings.empty() {
		s.inform("Conntrack settings go back to what sgc found:")
	}
	for _, step := range settings.steps {
		by := ""
		if step.drifted {
			by = fmt.Sprintf("  (sgc had set %s; it was changed by hand)", valueText(step.Setting, step.was))
		}
		s.inform("  ~ %s%s", settingText(step.SettingChange), by)
	}
	return s.approve(ctx, question, "destroy")
}

// giveBack brings the conntrack settings back to what sgc found. The table is
// gone by then; if that fails, a later destroy brings them back.
func (s *session) giveBack(h *host, settings *settingsPlan, destroyed, autoApprove bool) error {
	done, err := h.setSettings(settings)
	if err == nil {
		// What the namespace does not let sgc bring back is not its own any more.
		err = h.dir.ForgetSettings()
	}
	if err != nil {
		return fmt.Errorf("nothing is enforced any more, but the conntrack settings are not yet what sgc found (the next sgc destroy brings them back): %w", err)
	}
	for _, d := range settings.steps {
		if d.drifted && autoApprove {
			s.inform("The host's %s was changed by hand, from %s to %s; it is %s again, as sgc found it.",
				settingName(d.Setting), valueText(d.Setting, d.was), valueText(d.Setting, d.Old), valueText(d.Setting, d.New))
		}
	}
	s.warnRefused(done)
	for _, r := range settings.refused {
		s.inform("%s: %s.", s.errPaint().yellow("Warning"), r.refusedText())
	}
	return s.showDestroyed(destroyed, settings.views(done))
}

func (s *session) showDestroyed(destroyed bool, settings []settingView) error {
	if s.JSON {
		if settings == nil {
			settings = []settingView{}
		}
		return s.writeJSON(destroyView{formatVersion, destroyed, settings})
	}
	text := "Nothing is enforced, nothing to remove."
	if destroyed {
		text = "The table inet sgc is removed. Nothing is enforced any more."
	}
	back := 0
	for _, v := range settings {
		if v.By != "" {
			back++
		}
	}
	if back > 0 {
		if !destroyed {
			text = "There was no table to remove."
		}
		text += fmt.Sprintf(" %s went back to what sgc found.", plural(back, "conntrack setting"))
	}
	_, err := fmt.Fprintln(s.Out, text)
	return err
}
