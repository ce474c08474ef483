package cli

import "sgc/policies"

// planView is the JSON form of plan and apply.
type planView struct {
	FormatVersion int    `json:"format_version"`
	Path          string `json:"path"`
	Digest        string `json:"digest"`
	// Recorded is false where the kernel has a table but nobody wrote down
	// which policy it stands for: there are no Changes then, but Objects.
	Recorded bool              `json:"recorded"`
	Changes  []policies.Change `json:"changes"`
	Drift    []drifted         `json:"drift"`
	Objects  []objectRow       `json:"objects,omitempty"`
	// Settings are those of the host's conntrack that change, or that stay
	// although the policy wants otherwise.
	Settings []settingView `json:"settings"`
	// LiveFlows are those that the change is about, Held what is refused since an
	// earlier one, so that flows which it cut do not come back.
	LiveFlows liveFlowsView `json:"live_flows"`
	Held      []heldView    `json:"held"`
	Notes     []string      `json:"notes"`
	// Warnings are of what makes the policy moot.
	Warnings []warning `json:"warnings"`
	// Diagnostics are the policy's warnings; errors leave no plan to print.
	Diagnostics []diagnosticView `json:"diagnostics"`
	// Operations are listed with --verbose.
	Operations []operation `json:"operations,omitempty"`
	Summary    summaryView `json:"summary"`
	// Applied is set by apply: whether it changed anything, the table or a
	// setting.
	Applied *bool `json:"applied,omitempty"`
}

// summaryView counts.
type summaryView struct {
	// Changed is what plan --detailed-exitcode answers.
	Changed bool `json:"changed"`
	Add     int  `json:"add"`
	Change  int  `json:"change"`
	Remove  int  `json:"remove"`
	Drifted int  `json:"drifted"`
	// Settings are those of the host's conntrack that change: by the policy (they
	// are in Change then), or since they drifted.
	Settings int `json:"settings"`
	// Cut is how many live flows are cut.
	Cut int `json:"cut"`
	// Transactions is 0 to 3. Messages and Bytes are those of all.
	Transactions int `json:"transactions"`
	Messages     int `json:"messages"`
	Bytes        int `json:"bytes"`
}

// summary counts what the plan holds.
func (p *plan) summary() summaryView {
	v := summaryView{
		Changed: !p.empty(), Drifted: len(p.drift),
		Transactions: p.commitDelta().Transactions(), Messages: p.commitDelta().Messages(), Bytes: p.commitDelta().Bytes(),
		Cut: p.live.cut(),
	}
	v.Add, v.Change, v.Remove = countChanges(p.changes)
	v.Change += p.settings.changed()
	v.Settings = len(p.settings.steps)
	for _, o := range p.objects {
		switch o.Action {
		case actionAdd:
			v.Add++
		case actionRemove:
			v.Remove++
		default:
			v.Change++
		}
	}
	return v
}

func (p *plan) view(verbose bool, applied *bool) planView {
	v := planView{
		FormatVersion: formatVersion, Path: absolute(p.path), Digest: p.digest, Recorded: !p.unrecorded,
		Changes: p.changes, Drift: p.drift, Objects: p.objects, Notes: p.allNotes(), Warnings: p.warnings,
		Settings:  p.settings.views(p.tuned),
		LiveFlows: p.live.view(), Held: p.held(),
		Diagnostics: viewDiagnostics(p.diagnostics),
		Summary:     p.summary(), Applied: applied,
	}
	v.LiveFlows.WillHold = append(v.LiveFlows.WillHold, p.live.willHoldFlows()...)
	if v.Changes == nil {
		v.Changes = []policies.Change{}
	}
	if v.Drift == nil {
		v.Drift = []drifted{}
	}
	if v.Notes == nil {
		v.Notes = []string{}
	}
	if v.Warnings == nil {
		v.Warnings = []warning{}
	}
	if verbose {
		for c := range p.delta.Changes() {
			v.Operations = append(v.Operations, newOperation(c))
		}
	}
	return v
}
