package policies

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// NotEnforced returns an error for each thing in the policy that the language
// has and the compiled ruleset does not honour yet. A policy is refused rather
// than enforced in part. The result is empty for what is enforced in full.
func NotEnforced(p *Policy) hcl.Diagnostics {
	var out hcl.Diagnostics
	refuse := func(at Pos, what, without string) {
		start := hcl.Pos{Line: at.Line, Column: at.Column}
		// A policy knows where a block begins; its type is the first word there.
		end := start
		end.Column += len(what[strings.LastIndexByte(what, '.')+1:])
		out = append(out, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Not enforced yet",
			Detail:   fmt.Sprintf("This version of sgc reads %s but does not enforce it. %s", what, without),
			Subject:  &hcl.Range{Filename: at.File, Start: start, End: end},
		})
	}
	for _, a := range p.ACLs {
		refuse(a.Pos, "network_acl", "Remove the block and the references to it.")
	}
	for _, i := range p.Interfaces {
		for _, t := range i.AlwaysTrack {
			refuse(t.Pos, "always_track", "Remove the block.")
		}
		if i.Timeouts != nil {
			refuse(i.Pos, "connection_tracking", "Remove the block from this interface; the defaults of the kernel hold.")
		}
		if i.Log != nil {
			refuse(i.Log.Pos, "log_denied", "Remove the block.")
		}
	}
	if p.Host.Conntrack != nil {
		refuse(p.Host.Conntrack.Pos, "host.conntrack", "Remove the block; the settings of the kernel hold.")
	}
	for _, t := range p.Tests {
		refuse(t.Pos, "test", "Remove the block.")
	}
	return out
}
