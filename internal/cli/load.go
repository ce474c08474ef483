package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2"

	"sgc/policies"
)

// policyPath returns the path that the user gave, or the default: the current
// directory if it holds policy files, else the system's.
func policyPath(argument string) (string, error) {
	if argument != "" {
		return argument, nil
	}
	if files, err := policies.Files("."); err == nil && len(files) > 0 {
		return ".", nil
	}
	if _, err := os.Stat(defaultPolicyDir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("no policy found: the current directory holds no *.hcl files, and %s does not exist. Name a directory or a file", defaultPolicyDir)
		}
		return "", fmt.Errorf("look for the policy: %w", err)
	}
	return defaultPolicyDir, nil
}

// inputs are the values of variables, from the flags and the environment.
func (s *session) inputs() policies.Inputs {
	return policies.Inputs{Files: s.VarFiles, Values: s.Vars, Environ: s.Environ}
}

// loadEnforceable is load for commands that need nothing but the policy.
func (s *session) loadEnforceable(ctx context.Context, path string, in policies.Inputs) (*policies.Policy, error) {
	loaded, err := s.load(ctx, path, in, false)
	if err != nil {
		return nil, err
	}
	return loaded.Policy, nil
}

// load reads a policy, for commands that make or change a ruleset, and reports
// its diagnostics. It fails with errReported if there are errors. What sgc
// cannot enforce is an error too: leaving it out would open the host.
func (s *session) load(ctx context.Context, path string, in policies.Inputs, verbose bool) (*policies.Loaded, error) {
	loaded, err := s.loadPolicy(ctx, path, in)
	if err != nil {
		return nil, err
	}
	return loaded, s.checkEnforceable(loaded, verbose)
}

// checkEnforceable adds what commands that make a ruleset have to say of a
// policy, and reports its diagnostics. It fails with errReported if there are
// errors.
func (s *session) checkEnforceable(loaded *policies.Loaded, verbose bool) error {
	if p := loaded.Policy; p != nil {
		loaded.Add(policies.NotEnforced(p)...)
		loaded.Add(aclDiagnostics(p, verbose)...)
		loaded.Add(idleDiagnostics(p)...)
	}
	return s.report(loaded)
}

// idleDiagnostics warns of a policy that enforces nothing, be it that all of
// it was lost.
func idleDiagnostics(p *policies.Policy) []*hcl.Diagnostic {
	if len(p.Interfaces) > 0 {
		return nil
	}
	return []*hcl.Diagnostic{{
		Severity: hcl.DiagWarning,
		Summary:  "The policy enforces nothing: no interface block",
		Detail:   `Security groups and network ACLs act on the interfaces that name them. Add interface "eth0" { security_groups = […] }; without one, every packet passes.`,
	}}
}

// report writes the diagnostics of a load to standard error, and returns
// errReported if one of them is an error.
func (s *session) report(loaded *policies.Loaded) error {
	if err := policies.WriteDiagnostics(s.Err, loaded, s.Width, s.errPaint().on); err != nil {
		return fmt.Errorf("write the diagnostics: %w", err)
	}
	if loaded.Diagnostics.HasErrors() {
		return errReported
	}
	return nil
}

// count returns how many of the diagnostics have the severity.
func count(diagnostics hcl.Diagnostics, severity hcl.DiagnosticSeverity) int {
	n := 0
	for _, d := range diagnostics {
		if d.Severity == severity {
			n++
		}
	}
	return n
}
