package cli

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"sgc/compile"
	"sgc/policies"
)

// aclDiagnostics warns of ACL entries that never decide anything. With verbose
// it also says which ACLs cost more than a few look-ups for each packet.
func aclDiagnostics(p *policies.Policy, verbose bool) []*hcl.Diagnostic {
	var out []*hcl.Diagnostic
	for _, n := range compile.Notes(p) {
		d := &hcl.Diagnostic{Severity: hcl.DiagWarning, Subject: n.Pos.Range()}
		switch {
		case n.Hidden != nil:
			d.Summary, d.Detail = "Entry without effect", hiddenText(n.Hidden, n.By)
		case verbose:
			d.Summary = "Entries walked in order"
			d.Detail = n.Text + ". The meaning is the same; each of these packets costs more time the more entries there are. Fewer port ranges that overlap in part would help."
		default:
			continue
		}
		out = append(out, d)
	}
	return out
}

// hiddenText says what hides an entry, and what to do about it.
func hiddenText(e *policies.ACLEntry, hiders []*policies.ACLEntry) string {
	by := hiders[0]
	if len(hiders) > 1 {
		numbers := make([]string, len(hiders))
		for i, h := range hiders {
			numbers[i] = fmt.Sprint(h.Number)
		}
		return fmt.Sprintf("Entry %d never gets to decide anything: entries %s come first, and together match everything that it matches. If it shall decide, give it a lower rule_no; else remove it.",
			e.Number, strings.Join(numbers, ", "))
	}
	verb, also := "deny", ""
	if e.Allow {
		verb = "allow"
	}
	way := fmt.Sprintf("If it shall decide, give it a rule_no below %d; else remove it.", by.Number)
	if e.Allow == by.Allow {
		also, way = " too", "Remove it."
	}
	byVerb := "denies"
	if by.Allow {
		byVerb = "allows"
	}
	return fmt.Sprintf("Entry %d never gets to %s anything: entry %d at line %d of %s comes first, matches everything that it matches, and %s that%s. %s",
		e.Number, verb, by.Number, by.Pos.Line, by.Pos.File, byVerb, also, way)
}
