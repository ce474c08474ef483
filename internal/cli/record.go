package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// enforced is the part of a record that only this package reads: all that is
// needed to make the same table again.
type enforced struct {
	// By is the version of sgc that made the table. Another one may make
	// another table of the same policy.
	By string `json:"by,omitempty"`
	// Conntrack says in which families other tables needed conntrack.
	Conntrack map[flow.Family]string `json:"conntrack,omitempty"`
	// Flush is how the apply treats live flows.
	Flush conntrack.FlushMode `json:"flush,omitempty"`
	// Lost says that the rules of the record before were not in the kernel any
	// more when the apply began.
	Lost bool `json:"lost,omitempty"`
	// Restores says that rules of the record before were missing in the kernel, or
	// others were there, when the apply began.
	Restores bool `json:"restores,omitempty"`
	// Was is what was in force before, where there is no record of it.
	Was *enforced `json:"was,omitempty"`
	// Past holds the rules that groups had on interfaces before.
	Past *policies.Past `json:"past,omitempty"`
	// replaces says that Policy takes the place of this one, whose rules are not in
	// Past yet: a record has them from the time on that it has itself.
	replaces *policies.Policy
	// Policy is nil in the record of a destroy. It comes last, see readAs.
	Policy *policies.Policy `json:"policy"`
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
	now := time.Now().UTC().Truncate(time.Second)
	if e.replaces != nil {
		e.Past = e.Past.Add(e.replaces, e.Policy, now)
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write the policy down: %w", err)
	}
	r := &apply.Record{
		Applied: now,
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

// readAs is read for somebody who has the policy already. It does not read the
// one in the record, which may be large.
func readAs(r *apply.Record, policy *policies.Policy) (*enforced, error) {
	e := &enforced{Policy: policy}
	d := json.NewDecoder(bytes.NewReader(r.Policy))
	begin, err := d.Token()
	if err == nil && begin != json.Delim('{') {
		err = errors.New("it is no object")
	}
	for err == nil && d.More() {
		var name json.Token
		if name, err = d.Token(); err != nil {
			break
		}
		switch name {
		case "by":
			err = d.Decode(&e.By)
		case "conntrack":
			err = d.Decode(&e.Conntrack)
		case "flush":
			err = d.Decode(&e.Flush)
		case "lost":
			err = d.Decode(&e.Lost)
		case "restores":
			err = d.Decode(&e.Restores)
		case "was":
			err = d.Decode(&e.Was)
		case "past":
			err = d.Decode(&e.Past)
		case "policy":
			return e, nil
		default:
			err = d.Decode(new(json.RawMessage))
		}
	}
	if err == nil {
		_, err = d.Token() // the end of the object
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of what is enforced: %w", err)
	}
	return e, nil
}

// absolute returns the path as it is understood from any directory; a working
// directory that is gone leaves it as it is.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}
