package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sgc/apply"
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
	// Restored is set if the setting goes back to what sgc found.
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
	settings *settingsPlan
	// dir is nil where nobody keeps what was found.
	dir *apply.Dir
	// excess is how many entries are to be shortened.
	excess int
	limits *conntrack.Limits
}

func (s *session) conntrackTune(ctx context.Context, path string, existing, autoApprove bool) error {
	p, err := s.neededPolicy(ctx, path, conntrackTune)
	if err != nil {
		return err
	}
	return s.withTracking(ctx, p, func(t *tracking) error {
		return s.withKept(ctx, func(dir *apply.Dir) error {
			work, err := s.findTuning(ctx, t, dir, existing)
			if err != nil {
				return err
			}
			if len(work.settings.steps)+work.excess > 0 && !autoApprove {
				s.explainTuning(work)
				if err := s.approve(ctx, "Make these changes?", "conntrack tune"); err != nil {
					return err
				}
			}
			return s.tune(ctx, t, work, existing)
		})
	})
}

// lockPatience is how long a command waits for another sgc that has no flag
// for it.
const lockPatience = 10 * time.Second

// withKept calls f with the state directory, locked, if a policy was applied: a
// destroy brings back what was found before. It is nil where none was.
func (s *session) withKept(ctx context.Context, f func(*apply.Dir) error) (err error) {
	dir, err := s.existingDir()
	if err != nil {
		return err
	}
	if dir == nil {
		return f(nil)
	}
	lock, err := s.lock(ctx, dir, lockPatience)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	kept, err := dir.Settings()
	if err != nil {
		return err
	}
	r, err := readRecords(dir)
	if err != nil {
		return err
	}
	if kept == nil && r.applied == nil && r.pending == nil {
		return f(nil)
	}
	return f(dir)
}

// findTuning compares what the kernel has with what the policy wants.
func (s *session) findTuning(ctx context.Context, t *tracking, dir *apply.Dir, existing bool) (*tuning, error) {
	v := &settingsSight{kept: new(keptSettings)}
	if err := v.read(t.table); err != nil {
		return nil, err
	}
	kept, err := readKept(dir)
	if err != nil {
		return nil, err
	}
	if kept != nil {
		v.kept = kept
	}
	// What this policy does not name is another one's business.
	work := &tuning{settings: planSettings(v, conntrack.Wanted(t.policy), false), dir: dir, limits: conntrack.NewLimits(t.policy, t.index)}
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
	for _, step := range work.settings.steps {
		s.inform("  ~ %s", settingText(step.SettingChange))
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
	done, err := work.settings.carryOut(t.table, work.dir)
	if err != nil {
		return err
	}
	v := tuneView{FormatVersion: formatVersion, Settings: work.settings.views(done)}
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
	writeTuned(&b, done)
	if b.Len() == 0 {
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
			s.inform("%s %s.", s.errPaint().yellow("Warning:"), r.refusedText())
		}
	}
	_, err := s.Out.Write([]byte(b.String()))
	return err
}
