package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"

	"sgc/apply"
	"sgc/conntrack"
	"sgc/policies"
)

// keptSettings is what the state directory knows of the host's conntrack
// settings. All three say something of settings that sgc answers for, and of no
// other.
type keptSettings struct {
	FormatVersion int `json:"format_version"`
	// Found are the values from before sgc set them for the first time. It is on
	// the disk before that.
	Found conntrack.Settings `json:"found"`
	// Set are the values that sgc gave them last. Another value is drift.
	Set conntrack.Settings `json:"set"`
	// Changing are those that a run of sgc was giving them when it ended: they
	// may have them or not, and neither is drift.
	Changing conntrack.Settings `json:"changing,omitempty"`
}

// settingsVersion is the format of the settings on disk that this sgc writes, and
// the newest that it reads.
const settingsVersion = 1

func newKept() *keptSettings {
	return &keptSettings{FormatVersion: settingsVersion, Found: conntrack.Settings{}, Set: conntrack.Settings{}, Changing: conntrack.Settings{}}
}

// readKept reads what an earlier run kept, nil if there is nothing. dir is nil
// where there is no state directory.
func readKept(dir *apply.Dir) (*keptSettings, error) {
	if dir == nil {
		return nil, nil
	}
	raw, err := dir.Settings()
	if err != nil || raw == nil {
		return nil, err
	}
	// Another version comes with another form.
	var version struct {
		FormatVersion int `json:"format_version"`
	}
	k := new(keptSettings)
	err = json.Unmarshal(raw, &version)
	switch {
	case err != nil:
	case version.FormatVersion > settingsVersion:
		return nil, fmt.Errorf("the settings in the state directory %s have format version %d, and this sgc knows versions up to %d: use the newer sgc that wrote them", dir.Path(), version.FormatVersion, settingsVersion)
	default:
		err = json.Unmarshal(raw, k)
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings in the state directory %s: %w", dir.Path(), err)
	}
	return k, nil
}

// keep puts k on the disk; without anything that sgc answers for, it is removed.
func (k *keptSettings) keep(dir *apply.Dir) error {
	if len(k.Found) == 0 {
		return dir.ForgetSettings()
	}
	raw, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("write the settings down: %w", err)
	}
	return dir.KeepSettings(raw)
}

// equal reports whether two say the same; nothing kept is the same as none that
// sgc answers for.
func (k *keptSettings) equal(other *keptSettings) bool {
	of := func(k *keptSettings) keptSettings {
		if k == nil {
			return keptSettings{}
		}
		return *k
	}
	a, b := of(k), of(other)
	return maps.Equal(a.Found, b.Found) && maps.Equal(a.Set, b.Set) && maps.Equal(a.Changing, b.Changing)
}

// settingsSight is what a command finds of the host's conntrack settings.
type settingsSight struct {
	have  conntrack.Settings
	locks conntrack.Locks
	// size is how full the table of connections is.
	size conntrack.Size
	// kept is never nil.
	kept *keptSettings
}

// lookAtSettings reads the settings of the kernel's namespace, and what an
// earlier run kept. It changes neither, and holds no lock: if another run
// changes them at the same time, it looks again. It returns nil, and no error,
// where the kernel has no conntrack over netlink.
func lookAtSettings(k *apply.Kernel, dir *apply.Dir) (*settingsSight, error) {
	before, err := readKept(dir)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		v := new(settingsSight)
		err := insideTable(k, v.read)
		if errors.Is(err, conntrack.ErrUnsupported) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		after, err := readKept(dir)
		if err != nil {
			return nil, err
		}
		if reflect.DeepEqual(before, after) || attempt == attempts {
			if v.kept = after; after == nil {
				v.kept = new(keptSettings)
			}
			return v, nil
		}
		before = after
	}
}

func (v *settingsSight) read(t *conntrack.Table) (err error) {
	if v.have, err = t.Settings(); err != nil {
		return err
	}
	if v.locks, err = t.Locks(); err != nil {
		return err
	}
	v.size, err = t.Size()
	return err
}

// insideTable opens the conntrack of the kernel's namespace for f.
func insideTable(k *apply.Kernel, f func(*conntrack.Table) error) error {
	return k.Inside(func() error {
		t, err := conntrack.Open(0)
		if err != nil {
			return err
		}
		return errors.Join(f(t), t.Close())
	})
}

// settingStep is one setting that is to get another value. Old is the one that
// it has.
type settingStep struct {
	conntrack.SettingChange
	// drifted is set if Old is not what sgc set last, which is was.
	drifted bool
	was     uint32
	// back is set if the setting goes back to what was found.
	back bool
}

// base is the value that the policy's change begins from.
func (s settingStep) base() uint32 {
	if s.drifted {
		return s.was
	}
	return s.Old
}

// settingsPlan is what one run does to the settings.
type settingsPlan struct {
	sight *settingsSight
	steps []settingStep
	// refused stay as they are, and the policy wants otherwise.
	refused []settingView
	// kept is what is known afterwards.
	kept *keptSettings
}

// planSettings compares the settings with those that are wanted. With giveBack,
// those that sgc answers for and that are not wanted any more go back to what
// was found; without, they stay.
func planSettings(v *settingsSight, want conntrack.Settings, giveBack bool) *settingsPlan {
	p := &settingsPlan{sight: v, kept: newKept()}
	if v == nil {
		return p
	}
	for _, s := range conntrack.AllSettings() {
		p.plan(s, want, giveBack)
	}
	return p
}

func (p *settingsPlan) plan(s conntrack.Setting, want conntrack.Settings, giveBack bool) {
	kept := p.sight.kept
	now, known := p.sight.have[s]
	target, wanted := want[s]
	found, ours := kept.Found[s]
	set := kept.Set[s]
	changing, unsure := kept.Changing[s]
	stays := func() {
		if ours {
			p.kept.Found[s], p.kept.Set[s] = found, set
		}
		if ours && unsure {
			p.kept.Changing[s] = changing
		}
	}
	if !wanted {
		if !ours {
			return
		}
		if !giveBack {
			stays()
			return
		}
		target = found
	}
	if !known {
		// A setting that is gone with its module is not brought back.
		if wanted {
			p.refused = append(p.refused, settingView{Setting: s.String(), New: target, Refused: "this kernel has no such setting"})
			stays()
		}
		return
	}
	step := settingStep{SettingChange: conntrack.SettingChange{Setting: s, Old: now, New: target}, back: !wanted}
	if ours && !unsure {
		step.drifted, step.was = now != set, set
	}
	if now != target {
		if why := p.sight.locks.Refuses(step.SettingChange); why != "" {
			r := newSettingView(conntrack.Tuned{SettingChange: step.SettingChange, Refused: why})
			r.Restored = step.back
			p.refused = append(p.refused, r)
			stays()
			return
		}
		p.steps = append(p.steps, step)
	}
	if !wanted {
		return
	}
	if !ours {
		found = now
	}
	p.kept.Found[s], p.kept.Set[s] = found, target
}

// empty reports whether nothing is to be set.
func (p *settingsPlan) empty() bool { return p == nil || len(p.steps) == 0 }

// changes are the steps in the form of the kernel's door.
func (p *settingsPlan) changes() []conntrack.SettingChange {
	var changes []conntrack.SettingChange
	for _, s := range p.steps {
		changes = append(changes, s.SettingChange)
	}
	return changes
}

// carryOut sets what is to be set. What was found is on the disk before the
// first change; if the run ends in between, or Tune fails, the disk says which
// settings were being changed, and the next run goes on from there. Without a
// state directory nothing is kept.
func (p *settingsPlan) carryOut(t *conntrack.Table, dir *apply.Dir) ([]conntrack.Tuned, error) {
	if p.empty() {
		return nil, p.keep(dir)
	}
	if dir != nil {
		if err := p.underWay().keep(dir); err != nil {
			return nil, err
		}
	}
	done, err := t.Tune(p.changes())
	if err != nil {
		return nil, err
	}
	for _, d := range done {
		if d.Refused == "" {
			continue
		}
		// It was not known before. What sgc did not set it does not answer for.
		delete(p.kept.Found, d.Setting)
		delete(p.kept.Set, d.Setting)
		if found, ours := p.sight.kept.Found[d.Setting]; ours {
			p.kept.Found[d.Setting], p.kept.Set[d.Setting] = found, p.sight.kept.Set[d.Setting]
		}
	}
	if dir == nil {
		return done, nil
	}
	// What is on the disk still says that they are being changed.
	return done, p.kept.keep(dir)
}

// keep puts on the disk what is known once all is set, if it is not there.
func (p *settingsPlan) keep(dir *apply.Dir) error {
	if dir == nil || p.sight == nil || p.kept.equal(p.sight.kept) {
		return nil
	}
	return p.kept.keep(dir)
}

// underWay is what is on the disk while the settings are being changed: what
// was found of all of them, and what the first ones may have already.
func (p *settingsPlan) underWay() *keptSettings {
	k := &keptSettings{
		FormatVersion: settingsVersion,
		Found:         maps.Clone(p.kept.Found), Set: maps.Clone(p.kept.Set), Changing: maps.Clone(p.kept.Changing),
	}
	for _, s := range p.steps {
		if s.back {
			k.Found[s.Setting] = p.sight.kept.Found[s.Setting]
		}
		k.Set[s.Setting], k.Changing[s.Setting] = s.Old, s.New
	}
	return k
}

// setSettings carries the plan out in the kernel's namespace.
func (h *host) setSettings(p *settingsPlan) (done []conntrack.Tuned, err error) {
	if p == nil || p.sight == nil {
		return nil, nil
	}
	if p.empty() {
		return nil, p.keep(h.dir)
	}
	err = insideTable(h.kernel, func(t *conntrack.Table) (err error) {
		done, err = p.carryOut(t, h.dir)
		return err
	})
	return done, err
}

// warnRefused tells of settings that could not be set although nothing had
// spoken against it.
func (s *session) warnRefused(done []conntrack.Tuned) {
	for _, d := range done {
		if d.Refused != "" {
			s.inform("%s: %s.", s.errPaint().yellow("Warning"), newSettingView(d).refusedText())
		}
	}
}

// withoutSettings leaves those lines of the policy's own changes out that the
// settings stand for: what happens to the kernel's values says more.
func withoutSettings(changes []policies.Change, p *settingsPlan) []policies.Change {
	told := map[string]bool{}
	for _, s := range p.steps {
		name := s.Setting.String()
		if s.Setting == conntrack.TimeoutICMPv6 {
			name = conntrack.TimeoutICMP.String()
		}
		if s.base() != s.New {
			told["host.conntrack."+name] = true
		}
	}
	var out []policies.Change
	for _, c := range changes {
		if !strings.HasPrefix(c.Address, "host.conntrack.") || !told[c.Address] {
			out = append(out, c)
		}
	}
	return out
}
