package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/urfave/cli/v2"

	"sgc/policies"
)

func (s *session) validateCommand() *cli.Command {
	return &cli.Command{
		Name: "validate", Usage: "check policy files", ArgsUsage: "[PATH]",
		Description: `Check policy files and say everything that is wrong with them at once. Needs
neither root nor a kernel.

` + paths,
		Action: func(c *cli.Context) error {
			argument, err := atMostOne(c)
			if err != nil {
				return err
			}
			path, err := policyPath(argument)
			if err != nil {
				return err
			}
			return s.validate(c.Context, path)
		},
	}
}

// validateView is the JSON form of validate.
type validateView struct {
	FormatVersion int              `json:"format_version"`
	Valid         bool             `json:"valid"`
	Errors        int              `json:"error_count"`
	Warnings      int              `json:"warning_count"`
	Diagnostics   []diagnosticView `json:"diagnostics"`
	Digest        string           `json:"digest,omitempty"`
}

// diagnosticView is one diagnostic in JSON, in the form that terraform
// validate -json made known.
type diagnosticView struct {
	Severity string     `json:"severity"`
	Summary  string     `json:"summary"`
	Detail   string     `json:"detail,omitempty"`
	Range    *rangeView `json:"range,omitempty"`
}

type rangeView struct {
	Filename string  `json:"filename"`
	Start    posView `json:"start"`
	End      posView `json:"end"`
}

type posView struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

func (s *session) validate(ctx context.Context, path string) error {
	loaded, err := s.loadPolicy(ctx, path, s.inputs())
	if err != nil {
		return err
	}
	if p := loaded.Policy; p != nil {
		// What is written right but cannot be enforced is no mistake of the
		// user; plan and apply refuse it.
		for _, d := range policies.NotEnforced(p) {
			d.Severity = hcl.DiagWarning
			loaded.Add(d)
		}
		loaded.Add(aclDiagnostics(p, false)...)
		loaded.Add(idleDiagnostics(p)...)
	}
	warnings := count(loaded.Diagnostics, hcl.DiagWarning)
	if s.JSON {
		view := validateView{
			FormatVersion: formatVersion,
			Valid:         !loaded.Diagnostics.HasErrors(),
			Errors:        count(loaded.Diagnostics, hcl.DiagError),
			Warnings:      warnings,
			Diagnostics:   viewDiagnostics(loaded.Diagnostics),
		}
		if loaded.Policy != nil {
			view.Digest = loaded.Policy.Digest()
		}
		if err := s.writeJSON(view); err != nil {
			return err
		}
		if !view.Valid {
			return errReported
		}
		return nil
	}
	if err := s.report(loaded); err != nil {
		return err
	}
	with := ""
	if warnings > 0 {
		with = ", with " + plural(warnings, "warning")
	}
	_, err = fmt.Fprintf(s.Out, "%s The policy is valid%s: %s.\n", s.outPaint().green("Success!"), with, contents(loaded.Policy))
	return err
}

func viewDiagnostics(diags hcl.Diagnostics) []diagnosticView {
	views := make([]diagnosticView, len(diags))
	for i, d := range diags {
		views[i] = viewDiagnostic(d)
	}
	return views
}

func viewDiagnostic(d *hcl.Diagnostic) diagnosticView {
	v := diagnosticView{Severity: "error", Summary: d.Summary, Detail: d.Detail}
	if d.Severity == hcl.DiagWarning {
		v.Severity = "warning"
	}
	if r := d.Subject; r != nil {
		v.Range = &rangeView{
			r.Filename,
			posView{r.Start.Line, r.Start.Column, r.Start.Byte},
			posView{r.End.Line, r.End.Column, r.End.Byte},
		}
	}
	return v
}

// contents says how much of what a policy holds.
func contents(p *policies.Policy) string {
	rules, entries := 0, 0
	for _, g := range p.Groups {
		rules += len(g.Rules)
	}
	for _, l := range p.Lists {
		entries += len(l.Entries)
	}
	parts := []string{
		plural(len(p.Groups), "security group") + " with " + plural(rules, "rule"),
	}
	if len(p.Lists) > 0 {
		parts = append(parts, plural(len(p.Lists), "prefix list")+" with "+plural(entries, "entry"))
	}
	if len(p.ACLs) > 0 {
		parts = append(parts, plural(len(p.ACLs), "network ACL"))
	}
	parts = append(parts, plural(len(p.Interfaces), "interface"))
	if len(p.Tests) > 0 {
		parts = append(parts, plural(len(p.Tests), "test"))
	}
	return strings.Join(parts, ", ")
}
