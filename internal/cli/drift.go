package cli

import (
	"fmt"
	"slices"
	"strings"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/ruleset"
)

// operation is one difference between two tables in the form of JSON.
type operation struct {
	// Action is what an apply does: add, remove, update or move.
	Action string `json:"action"`
	// Kind is table, chain, set, element, rule or object.
	Kind string `json:"kind"`
	// Name is the chain of a rule, the set of an element, else the object's
	// own name.
	Name string `json:"name"`
	// Address is the comment of the object: the policy address that it comes
	// from.
	Address string `json:"address,omitempty"`
	// Text is the object as nft writes it, Was what stands there before a
	// change.
	Text string `json:"text,omitempty"`
	Was  string `json:"was,omitempty"`
}

// The actions in JSON, of operations and of the policy's changes alike.
const (
	actionAdd    = "add"
	actionRemove = "remove"
	actionUpdate = "update"
	actionMove   = "move"
)

func actionName(a apply.Action) string {
	switch a {
	case apply.Add:
		return actionAdd
	case apply.Remove:
		return actionRemove
	case apply.Move:
		return actionMove
	default:
		return actionUpdate
	}
}

func newOperation(c apply.Change) operation {
	return operation{actionName(c.Action), c.Kind.String(), c.Name, c.Comment, c.Text, c.Was}
}

// drifted is one difference between what sgc committed and what the kernel
// holds: something was done by hand, or by another program. Its operation is
// what an apply does about it.
type drifted struct {
	operation
	// Description says it in a sentence.
	Description string `json:"description"`
}

// driftOf puts into words what was done to the kernel's table. The delta leads
// from the kernel back to the table that was committed. An object that is gone
// or there as a whole is one difference, whatever it holds.
func driftOf(delta *apply.Delta, committed *ruleset.Table) []drifted {
	var out []drifted
	chains := map[string]string{}
	if committed != nil {
		for _, c := range committed.Chains {
			chains[c.Name] = c.Comment
		}
	}
	whole := map[string]bool{}
	for c := range delta.Changes() {
		switch {
		case c.Kind == apply.TableKind && c.Action == apply.Add:
			return []drifted{{newOperation(c), "the table inet sgc is gone: nothing is enforced (the host was started anew, or somebody deleted the table)"}}
		case c.Kind == apply.TableKind:
			// The table is made anew with all it holds.
			return []drifted{{newOperation(c), describeDrift(c)}}
		case c.Kind == apply.ChainKind && (c.Action == apply.Add || c.Action == apply.Remove):
			whole[c.Name] = true
		}
	}
	interrupted := false
	for c := range delta.Changes() {
		if compile.IsTemporary(c.Name) || c.Kind == apply.RuleKind && c.Comment == compile.UntilDeleted {
			if !interrupted {
				interrupted = true
				out = append(out, drifted{newOperation(c), "left over from an interrupted apply: the rules that cut live flows until their entries are deleted; the next apply finishes that"})
			}
			continue
		}
		if c.Kind == apply.RuleKind && whole[c.Name] {
			continue
		}
		if c.Kind == apply.ElementKind && !isAddress(c.Comment) {
			// What an element of a map stands for is what its chain does.
			if _, target, ok := strings.Cut(c.Text, " : jump "); ok {
				c.Comment = chains[target]
			}
		}
		out = append(out, drifted{newOperation(c), describeDrift(c)})
	}
	return out
}

// dormant is the flag of a table whose chains the kernel does not enter.
const dormant = "dormant"

// describeDrift says what was done to one object.
func describeDrift(c apply.Change) string {
	// The declarations of tables, chains and sets begin with their names.
	title := c.Kind.String() + " " + c.Name + "; "
	text, was := clean(strings.TrimPrefix(c.Text, title)), clean(strings.TrimPrefix(c.Was, title))
	switch c.Kind {
	case apply.TableKind:
		if strings.Contains(was, dormant) {
			return "the table inet sgc was put to sleep (flags dormant): nothing is enforced"
		}
		return fmt.Sprintf("the table inet sgc was changed by hand: %s, not %s", was, text)
	case apply.RuleKind:
		return describeRule(c, text, was)
	case apply.ElementKind:
		return describeElement(c, text, was)
	case apply.ChainKind:
		if isDigest(c.Comment) && c.Action != apply.Remove {
			return fmt.Sprintf("the digest of the policy is missing or was changed by hand  (chain %s)", c.Name)
		}
	}
	object := c.Kind.String() + " " + clean(c.Name)
	if c.Kind == apply.ObjectKind {
		object = text
		// Their texts begin with their names, whatever they hold.
		if name, values, ok := strings.Cut(text, ": "); ok && c.Action == apply.Update {
			object, text, was = name, values, strings.TrimPrefix(was, name+": ")
		}
	}
	switch {
	case c.Action == apply.Add:
		return fmt.Sprintf("the %s is missing", object)
	case c.Unused && isAddress(c.Comment):
		return fmt.Sprintf("left over from an interrupted apply: the %s, which nothing uses", object)
	case c.Unused:
		return fmt.Sprintf("a %s that nothing uses: left over from an interrupted apply, or added by hand", object)
	case c.Action == apply.Remove:
		return fmt.Sprintf("a %s that no policy asks for  (added by hand)", object)
	default:
		return fmt.Sprintf("the %s was changed by hand: %s, not %s", object, was, text)
	}
}

func describeElement(c apply.Change, text, was string) string {
	name := ""
	if isAddress(c.Comment) {
		name = clean(c.Comment) + ": "
	}
	switch c.Action {
	case apply.Add:
		return fmt.Sprintf("%s%s is missing  (set %s)", name, withoutTarget(text), c.Name)
	case apply.Remove:
		return fmt.Sprintf("an element that no policy asks for: %s  (set %s, added by hand)", text, c.Name)
	default:
		return fmt.Sprintf("%san element was changed by hand: %s, not %s  (set %s)", name, was, text, c.Name)
	}
}

// withoutTarget cuts the chain that an element leads to from its text.
func withoutTarget(text string) string {
	text, _, _ = strings.Cut(text, " : jump ")
	return text
}

func describeRule(c apply.Change, text, was string) string {
	name := "a rule"
	switch comment := clean(c.Comment); {
	case isAddress(c.Comment):
		name = comment
	case comment != "":
		name = fmt.Sprintf("the rule %q", comment)
	}
	if c.Action == apply.Remove {
		return fmt.Sprintf("a rule that no policy asks for: %s  (chain %s, added by hand)", text, c.Name)
	}
	text, was = withoutComment(text), withoutComment(was)
	switch c.Action {
	case apply.Add:
		return fmt.Sprintf("%s is missing: %s  (chain %s)", name, text, c.Name)
	case apply.Move:
		return fmt.Sprintf("%s is out of its place: %s  (chain %s, moved by hand)", name, text, c.Name)
	default:
		return fmt.Sprintf("%s was changed by hand: %s, not %s  (chain %s)", name, was, text, c.Name)
	}
}

// isAddress reports whether a comment is a policy address, or several: rules
// that come from no block of the policy say what they are for.
func isAddress(comment string) bool {
	kind, _, ok := strings.Cut(comment, ".")
	return ok && slices.Contains([]string{"security_group", "prefix_list", "network_acl", "interface", "host"}, kind)
}

// withoutComment cuts the comment from a rule's text: the sentence around it
// begins with that.
func withoutComment(text string) string {
	text, _, _ = strings.Cut(text, ` comment "`)
	return text
}

// listed bounds how many differences of one kind in one set or chain a person
// is shown.
const listed = 5

// summarised calls show for every item, but for no more than listed of those
// with the same key; the rest of them go to more, after the last one shown.
// With verbose all are shown.
func summarised[T any](items []T, verbose bool, key func(T) string, show func(T), more func(T, int)) {
	if verbose {
		for _, item := range items {
			show(item)
		}
		return
	}
	// Items with one key stand together.
	for len(items) > 0 {
		first := key(items[0])
		n := slices.IndexFunc(items, func(item T) bool { return key(item) != first })
		if n < 0 {
			n = len(items)
		}
		shown := n
		// One line that says "1 more" is no shorter than the line itself.
		if n > listed+1 {
			shown = listed
		}
		for _, item := range items[:shown] {
			show(item)
		}
		if shown < n {
			more(items[shown], n-shown)
		}
		items = items[n:]
	}
}
