package cli

import (
	"fmt"
	"strings"

	"sgc/conntrack"
)

// conntrackView is what status says of the host's conntrack.
type conntrackView struct {
	Entries uint64 `json:"entries"`
	// Max is null where the table has no limit.
	Max *uint64 `json:"max"`
	// Settings are the timeouts in force, in order.
	Settings []inForceView `json:"settings"`
}

// inForceView is a setting in force.
type inForceView struct {
	Setting string `json:"setting"`
	Value   uint32 `json:"value"`
	// Found is what was there before sgc set it, null where sgc does not answer for
	// the setting.
	Found *uint32 `json:"found"`

	setting conntrack.Setting
}

func newConntrackView(v *settingsSight) *conntrackView {
	if v == nil {
		return nil
	}
	view := &conntrackView{Entries: v.size.Entries, Settings: []inForceView{}}
	if v.size.Max > 0 {
		view.Max = &v.size.Max
	}
	for _, s := range conntrack.AllSettings() {
		value, known := v.have[s]
		found, ours := v.kept.Found[s]
		if !known || !s.IsTimeout() && !ours {
			continue
		}
		one := inForceView{Setting: s.String(), Value: value, setting: s}
		if ours {
			one.Found = &found
		}
		view.Settings = append(view.Settings, one)
	}
	return view
}

func (v *conntrackView) write(b *strings.Builder, paint paint) {
	entries := thousands(int(v.Entries)) + ", without a limit"
	if v.Max != nil {
		entries = fmt.Sprintf("%s of %s", thousands(int(v.Entries)), thousands(int(*v.Max)))
	}
	rows := [][2]string{{"entries", entries}}
	for _, s := range v.Settings {
		text := valueText(s.setting, s.Value)
		if s.Found != nil && *s.Found != s.Value {
			text += "  (" + valueText(s.setting, *s.Found) + " before sgc set it)"
		}
		rows = append(rows, [2]string{settingName(s.setting), text})
	}
	fmt.Fprintf(b, "%s\n", paint.bold(hostConntrack))
	writeRows(b, rows)
}

// leftSettingsNotes say that nothing is enforced, but settings are still those
// of sgc: a destroy did not live to its end, or somebody else removed the table.
func leftSettingsNotes(v *settingsSight) []string {
	p := planSettings(v, nil, true)
	var changes []string
	for _, step := range p.steps {
		changes = append(changes, settingText(step.SettingChange))
	}
	if changes == nil {
		return nil
	}
	return []string{"conntrack settings are not yet what sgc found; sgc destroy brings them back: " + strings.Join(changes, ", ")}
}
