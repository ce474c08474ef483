package policies

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// declarations are the names of one kind that the files define.
type declarations struct {
	at    map[string]hcl.Range
	order []string // sorted, on first use
}

// sorted returns the names in order. It may be called only after the last
// name was declared.
func (d *declarations) sorted() []string {
	if d.order == nil {
		d.order = slices.Sorted(maps.Keys(d.at))
	}
	return d.order
}

func (d *declarations) has(name string) bool { _, ok := d.at[name]; return ok }

// declare takes a name in. It is false if somebody has it already; that is
// reported, with what the thing is called.
func (l *loader) declare(d *declarations, what, name string, at hcl.Range) bool {
	if first, taken := d.at[name]; taken {
		first = l.fix(first)
		l.errorAt(at, fmt.Sprintf("%s defined twice", capital(what)),
			fmt.Sprintf("%s %q is already defined at %s:%d:%d. Rename or remove one of the two.", capital(what), name, first.Filename, first.Start.Line, first.Start.Column))
		return false
	}
	if d.at == nil {
		d.at = map[string]hcl.Range{}
	}
	d.at[name] = at
	return true
}

// declared is a top-level block whose name is its own.
type declared struct {
	*block
	name string
}

// sortTopLevel puts the blocks of all files under their types and takes their
// names in. Blocks whose names are faulty or taken are kept apart: they are
// decoded for their faults, but nothing can refer to them.
func (l *loader) sortTopLevel(files []*body) {
	for _, f := range files {
		blocks, _ := l.check(f, rootSchema)
		for _, b := range blocks {
			d := declared{block: b}
			if len(b.labels) > 0 {
				d.name = b.labels[0].text
			}
			switch b.kind {
			case "variable":
				l.declareVariable(d)
			case "locals":
				l.declareLocals(b)
			case "security_group":
				l.declareNamed(groupRef, d)
			case "prefix_list":
				l.declareNamed(listRef, d)
			case "network_acl":
				l.declareNamed(aclRef, d)
			}
			l.blocks[b.kind] = append(l.blocks[b.kind], d)
		}
	}
}

func (l *loader) declareNamed(k refKind, d declared) {
	rng := d.labels[0].rng
	if problem := nameProblem(d.name); problem != "" {
		l.errorAt(rng, "Invalid name", problem)
		// References to it are no second fault; nor is another block of it.
		if _, taken := l.names[k].at[d.name]; taken {
			return
		}
	}
	l.declare(&l.names[k], k.noun(), d.name, rng)
}

func (l *loader) declareVariable(d declared) {
	rng := d.labels[0].rng
	l.check(d.body, rootSchema.block(d.kind))
	if !hclsyntax.ValidIdentifier(d.name) {
		l.errorAt(rng, "Invalid name", fmt.Sprintf("%q cannot be the name of a variable: use letters, digits, _ and -, beginning with a letter.", d.name))
		return
	}
	if l.declare(&l.variables.names, "variable", d.name, rng) {
		l.variables.blocks[d.name] = d.block
	}
}

func (l *loader) declareLocals(b *block) {
	for _, a := range b.body.attributes {
		if l.declare(&l.locals.names, "local value", a.name, a.nameRange) {
			l.locals.exprs[a.name] = a
		}
	}
	l.check(b.body, rootSchema.block(b.kind))
}

// buildContext makes the names of the policy known to expressions.
func (l *loader) buildContext() {
	vars := map[string]cty.Value{
		"var":   objectOf(l.variables.values),
		"local": objectOf(nil),
	}
	for k := range refKind(refKinds) {
		refs := make(map[string]cty.Value, len(l.names[k].at))
		for name := range l.names[k].at {
			refs[name] = cty.CapsuleVal(referenceTypes[k], &name)
		}
		vars[k.root()] = objectOf(refs)
	}
	l.ctx = &hcl.EvalContext{Variables: vars, Functions: l.functions()}
}

func objectOf(values map[string]cty.Value) cty.Value {
	if len(values) == 0 {
		return cty.EmptyObjectVal
	}
	return cty.ObjectVal(values)
}
