package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sgc/conntrack"
)

// tuneView is the JSON form of conntrack tune.
type tuneView struct {
	FormatVersion int            `json:"format_version"`
	Settings      []settingView  `json:"settings"`
	Existing      *shortenedView `json:"existing,omitempty"`
}

// settingView is a setting that is not as the policy wants it.
type settingView struct {
	Setting string `json:"setting"`
	// Old is null where the kernel has no such setting.
	Old *uint32 `json:"old"`
	New uint32  `json:"new"`
	// By is netlink or sysctl, "" if the setting stays as it is.
	By string `json:"by,omitempty"`
	// Refused says why it stays.
	Refused string `json:"refused,omitempty"`
	// Restored is set if the setting goes back to what the first apply found.
	Restored bool `json:"restored,omitempty"`
}

// shortenedView counts the entries that would have lived longer than the policy
// lets them.
type shortenedView struct {
	Shortened int `json:"shortened"`
	Ended     int `json:"ended"`
}

// tuning is what tune finds to do.
type tuning struct {
	changes []conntrack.SettingChange
	// refused are those that the namespace or the kernel does not allow.
	refused []settingView
	// excess is how many entries are to be shortened.
	excess int
	limits *conntrack.Limits
}

func (s *session) conntrackTune(ctx context.Context, path string, existing, autoApprove bool) error {
	p, err := s.neededPolicy(ctx, path, conntrackTune)
	if err != nil {
		return err
	}
	return s.withTracking(p, func(t *tracking) error {
		work, err := s.findTuning(ctx, t, existing)
		if err != nil {
			return err
		}
		if len(work.changes)+work.excess > 0 {
			if !autoApprove {
				s.explainTuning(work)
				if err := s.approve(ctx, "Make these changes?", "conntrack tune"); err != nil {
					return err
				}
			}
		}
		return s.tune(ctx, t, work, existing)
	})
}

// findTuning compares what the kernel has with what the policy wants.
func (s *session) findTuning(ctx context.Context, t *tracking, existing bool) (*tuning, error) {
	have, err := t.table.Settings()
	if err != nil {
		return nil, err
	}
	want := conntrack.Wanted(t.policy)
	work := &tuning{limits: conntrack.NewLimits(t.policy, t.index)}
	for _, missing := range conntrack.MissingSettings(have, want) {
		work.refused = append(work.refused, settingView{Setting: missing.String(), New: want[missing], Refused: "this kernel has no such setting"})
	}
	for _, c := range conntrack.DiffSettings(have, want) {
		why, err := t.table.Refuses(c)
		switch {
		case err != nil:
			return nil, err
		case why != "":
			work.refused = append(work.refused, newSettingView(conntrack.Tuned{SettingChange: c, Refused: why}))
		default:
			work.changes = append(work.changes, c)
		}
	}
	if !existing {
		return work, nil
	}
	err = t.table.Excess(ctx, t.judge, work.limits, func(*conntrack.Entry, time.Duration) error { work.excess++; return nil })
	return work, s.explainTorn(err)
}

func newSettingView(t conntrack.Tuned) settingView {
	return settingView{Setting: t.Setting.String(), Old: &t.Old, New: t.New, By: string(t.By), Refused: t.Refused}
}

// explainTuning says what is about to be done.
func (s *session) explainTuning(work *tuning) {
	for _, c := range work.changes {
		s.inform("  ~ %s", settingText(c))
	}
	if work.excess > 0 {
		s.inform("  ~ %s shortened to the timeouts of the policy", plural(work.excess, "live flow"))
	}
}

// settingText writes a change as plans do.
func settingText(c conntrack.SettingChange) string {
	return fmt.Sprintf("%s %s → %s", strings.ReplaceAll(c.Setting.String(), "_", " "), valueText(c.Setting, c.Old), valueText(c.Setting, c.New))
}

// valueText writes a timeout in the largest unit that fits it, 5d or 350s.
func valueText(s conntrack.Setting, v uint32) string {
	if !s.IsTimeout() {
		return thousands(int(v))
	}
	for _, unit := range timeUnits {
		if v > 0 && int(v)%unit.seconds == 0 {
			return strconv.Itoa(int(v)/unit.seconds) + unit.name
		}
	}
	return "0s"
}

func (s *session) tune(ctx context.Context, t *tracking, work *tuning, existing bool) error {
	v := tuneView{FormatVersion: formatVersion, Settings: []settingView{}}
	done, err := t.table.Tune(work.changes)
	if err != nil {
		return err
	}
	for _, d := range done {
		v.Settings = append(v.Settings, newSettingView(d))
	}
	v.Settings = append(v.Settings, work.refused...)
	if existing {
		r, err := t.table.Shorten(ctx, t.judge, work.limits)
		if err != nil {
			return fmt.Errorf("the settings are made, but not all live flows are shortened: %w", err)
		}
		v.Existing = &shortenedView{r.Done, r.Gone}
	}
	if s.JSON {
		return s.writeJSON(v)
	}
	return s.showTuned(done, v)
}

func (s *session) showTuned(done []conntrack.Tuned, v tuneView) error {
	var b strings.Builder
	made := 0
	for _, d := range done {
		if d.By != "" {
			made++
			fmt.Fprintf(&b, "%s (by %s)\n", settingText(d.SettingChange), d.By)
		}
	}
	if made == 0 {
		b.WriteString("No setting was changed.\n")
	}
	switch e := v.Existing; {
	case e == nil:
	case e.Shortened == 0:
		b.WriteString("No live flow had to be shortened.\n")
	default:
		fmt.Fprintf(&b, "%s shortened.\n", plural(e.Shortened, "live flow"))
	}
	for _, r := range v.Settings {
		if r.Refused != "" {
			s.inform("%s the policy wants %s = %d, but it stays: %s.", s.errPaint().yellow("Warning:"), r.Setting, r.New, r.Refused)
		}
	}
	_, err := s.Out.Write([]byte(b.String()))
	return err
}
