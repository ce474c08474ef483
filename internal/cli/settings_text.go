package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sgc/conntrack"
	"sgc/policies"
)

// hostConntrack heads the settings of the host in plans.
const hostConntrack = "host conntrack"

// settingName is the name of a setting as people read it: udp stream timeout.
func settingName(s conntrack.Setting) string { return strings.ReplaceAll(s.String(), "_", " ") }

// sections are the lines of a plan: what the policy changes. What is only
// brought back to what sgc set is drift.
func (p *settingsPlan) sections() []section {
	s := section{address: hostConntrack}
	for _, step := range p.steps {
		if step.base() == step.New {
			continue
		}
		cells := []string{settingName(step.Setting), valueText(step.Setting, step.base()) + " → " + valueText(step.Setting, step.New)}
		if step.back {
			cells = append(cells, "as sgc found it")
		}
		s.rows = append(s.rows, row{policies.Update, cells})
	}
	if s.rows == nil {
		return nil
	}
	return []section{s}
}

// changed counts the lines of sections.
func (p *settingsPlan) changed() int {
	n := 0
	for _, s := range p.sections() {
		n += len(s.rows)
	}
	return n
}

// settingKind is the kind of an operation on a conntrack setting.
const settingKind = "setting"

// drift are the settings that somebody else has changed. anew is set if the
// table is gone, too: the host may have been started anew.
func (p *settingsPlan) drift(anew bool) []drifted {
	var out []drifted
	for _, step := range p.steps {
		if !step.drifted {
			continue
		}
		why := "changed by hand"
		if anew {
			why = "the host was started anew, or it was changed by hand"
		}
		out = append(out, drifted{
			operation{Action: actionUpdate, Kind: settingKind, Name: step.Setting.String(), Text: step.Setting.Value(step.was), Was: step.Setting.Value(step.Old)},
			fmt.Sprintf("the host's %s is %s, not %s  (%s)", settingName(step.Setting), valueText(step.Setting, step.Old), valueText(step.Setting, step.was), why),
		})
	}
	return out
}

// noConntrack says why nothing is known of the settings.
const noConntrack = "this kernel has no conntrack over netlink (module nf_conntrack_netlink): timeouts and the limit stay as they are"

// notes say what the policy wants and does not get, and what a shorter timeout
// means for live flows.
func (p *settingsPlan) notes() []string {
	if p.sight == nil {
		return []string{noConntrack}
	}
	out := p.refusedNotes()
	if slices.ContainsFunc(p.steps, func(s settingStep) bool { return s.Setting.IsTimeout() && s.New < s.Old }) {
		out = append(out, "a timeout of the host gets shorter: live flows keep what they have until their next packet; sgc conntrack tune --existing shortens them at once")
	}
	return out
}

// statusNotes say what is not as the enforced policy wants it, and no drift.
func (p *settingsPlan) statusNotes() []string {
	if p.sight == nil {
		return []string{noConntrack}
	}
	out := p.refusedNotes()
	var missing []string
	for _, step := range p.steps {
		if !step.drifted {
			missing = append(missing, settingText(step.SettingChange))
		}
	}
	if missing != nil {
		out = append(out, "conntrack settings are not what the policy wants (an apply did not live to its end, or conntrack tune set those of another policy); sgc apply sets them: "+strings.Join(missing, ", "))
	}
	return out
}

func (p *settingsPlan) refusedNotes() []string {
	var out []string
	for _, r := range p.refused {
		out = append(out, r.refusedText())
	}
	return out
}

// refusedText says that a setting is not what the policy wants, and what to do.
func (v settingView) refusedText() string {
	var s conntrack.Setting
	text := fmt.Sprint(v.New)
	// The name is that of a setting, see newSettingView.
	if s.UnmarshalText([]byte(v.Setting)) == nil {
		text = valueText(s, v.New)
	}
	name := settingName(s)
	if s == conntrack.MaxEntries {
		name = "conntrack max"
	}
	who := "the policy wants"
	if v.Restored {
		who = "sgc found"
	}
	return fmt.Sprintf("%s %s = %s, but it stays as it is: %s", who, name, text, v.Refused)
}

// ownTimeoutNotes tell of timeouts that get shorter and are not the host's: those
// of interfaces and always_track blocks bind a flow when it begins.
func ownTimeoutNotes(old, new *policies.Policy) []string {
	if old == nil {
		return nil
	}
	was, host := timeoutsByAddress(old), new.HostTimeouts()
	var names []string
	for address, is := range timeoutsByAddress(new) {
		before, known := was[address]
		shorter := func(get func(policies.Timeouts) time.Duration) bool {
			return get(is) < get(before) && get(is) != get(host)
		}
		if known && (shorter(func(t policies.Timeouts) time.Duration { return t.TCPEstablished }) ||
			shorter(func(t policies.Timeouts) time.Duration { return t.UDP }) ||
			shorter(func(t policies.Timeouts) time.Duration { return t.UDPStream })) {
			names = append(names, address)
		}
	}
	if names == nil {
		return nil
	}
	slices.Sort(names)
	return []string{fmt.Sprintf("%s: timeouts get shorter that are not the host's; they bind flows that begin from now on, and live ones have the host's from their next packet on; sgc conntrack tune --existing shortens them once", shortList(names))}
}

// timeoutsByAddress are the timeouts in force on interfaces and for their
// always_track blocks.
func timeoutsByAddress(p *policies.Policy) map[string]policies.Timeouts {
	all := map[string]policies.Timeouts{}
	for _, i := range p.Interfaces {
		all[i.Address()] = i.EffectiveTimeouts()
		for _, t := range i.AlwaysTrack {
			all[i.Address()+".always_track."+t.ID] = t.EffectiveTimeouts(i)
		}
	}
	return all
}

// views are the settings in JSON: those that are to be set, and those that
// stay. done says how they were set; nil before that.
func (p *settingsPlan) views(done []conntrack.Tuned) []settingView {
	out := []settingView{}
	if p == nil {
		return out
	}
	for _, step := range p.steps {
		v := newSettingView(conntrack.Tuned{SettingChange: step.SettingChange})
		for _, d := range done {
			if d.Setting == step.Setting {
				v = newSettingView(d)
			}
		}
		v.Restored = step.back
		out = append(out, v)
	}
	return append(out, p.refused...)
}

// text stands for all that the plan sets: two with the same text do the same.
func (p *settingsPlan) text() string {
	if p == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range p.changes() {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// writeTuned says how settings were set.
func writeTuned(b *strings.Builder, done []conntrack.Tuned) {
	for _, d := range done {
		if d.By != "" {
			fmt.Fprintf(b, "%s (by %s)\n", settingText(d.SettingChange), d.By)
		}
	}
}
