package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// enforced is the part of a record that only this package reads: all that is
// needed to make the same table again.
type enforced struct {
	// Policy is nil in the record of a destroy.
	Policy *policies.Policy `json:"policy"`
	// By is the version of sgc that made the table. Another one may make
	// another table of the same policy.
	By string `json:"by,omitempty"`
	// Conntrack says in which families other tables needed conntrack.
	Conntrack map[flow.Family]string `json:"conntrack,omitempty"`
	// compiled is what table returned before.
	compiled *ruleset.Table
}

// table compiles what the record says into the table that was committed; it is
// nil for a destroy.
func (e *enforced) table() *ruleset.Table {
	if e == nil || e.Policy == nil {
		return nil
	}
	if e.compiled == nil {
		e.compiled = compile.Compile(e.Policy, compile.Environment{Conntrack: e.Conntrack})
	}
	return e.compiled
}

// newRecord makes the record of an apply of the policy at path.
func newRecord(path, digest string, e enforced) (*apply.Record, error) {
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write the policy down: %w", err)
	}
	r := &apply.Record{
		Applied: time.Now().UTC().Truncate(time.Second),
		Digest:  digest,
		Policy:  raw,
	}
	if e.Policy != nil {
		r.Path = absolute(path)
		for _, f := range e.Policy.Files {
			r.Files = append(r.Files, absolute(f))
		}
	}
	return r, nil
}

// read decodes the part of a record that apply does not read.
func read(r *apply.Record) (*enforced, error) {
	if r == nil {
		return nil, nil
	}
	e := new(enforced)
	if err := json.Unmarshal(r.Policy, e); err != nil {
		return nil, fmt.Errorf("read the policy in the record of what is enforced: %w", err)
	}
	return e, nil
}

// readAs is read where the policy is known already.
func readAs(r *apply.Record, policy *policies.Policy) (*enforced, error) {
	var rest struct {
		By        string                 `json:"by"`
		Conntrack map[flow.Family]string `json:"conntrack"`
	}
	if err := json.Unmarshal(r.Policy, &rest); err != nil {
		return nil, fmt.Errorf("read the record of what is enforced: %w", err)
	}
	return &enforced{Policy: policy, By: rest.By, Conntrack: rest.Conntrack}, nil
}

// absolute returns the path as it is understood from any directory; a working
// directory that is gone leaves it as it is.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}
