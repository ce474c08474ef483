package policies

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// refKind is what a reference leads to.
type refKind uint8

const (
	groupRef refKind = iota
	listRef
	aclRef
	refKinds = iota
)

// root returns the word before the dot of a reference, which is the type of
// the block as well.
func (k refKind) root() string {
	switch k {
	case groupRef:
		return "security_group"
	case listRef:
		return "prefix_list"
	case aclRef:
		return "network_acl"
	}
	panic(fmt.Sprintf("reference kind %d", k))
}

// noun is the thing in a sentence.
func (k refKind) noun() string {
	return strings.ReplaceAll(strings.Replace(k.root(), "acl", "ACL", 1), "_", " ")
}

// referenceTypes are the types of the values of references. They are capsules
// and do not convert to strings, so that a prefix list cannot be taken for the
// group of the same name.
var referenceTypes = [refKinds]cty.Type{
	groupRef: referenceType(groupRef),
	listRef:  referenceType(listRef),
	aclRef:   referenceType(aclRef),
}

func referenceType(k refKind) cty.Type {
	return cty.CapsuleWithOps(k.noun(), reflect.TypeFor[string](), &cty.CapsuleOps{
		GoString:     func(v any) string { return k.root() + "." + *v.(*string) },
		TypeGoString: func(reflect.Type) string { return k.root() },
		Equals:       func(a, b any) cty.Value { return cty.BoolVal(*a.(*string) == *b.(*string)) },
		RawEquals:    func(a, b any) bool { return *a.(*string) == *b.(*string) },
		HashKey:      func(v any) string { return *v.(*string) },
	})
}

// reference returns the kind and name of a reference, or false.
func reference(v cty.Value) (refKind, string, bool) {
	for k, ty := range referenceTypes {
		if v.Type().Equals(ty) {
			return refKind(k), *v.EncapsulatedValue().(*string), true
		}
	}
	return 0, "", false
}

// eval returns the value of an expression, which is known, but may be null. It
// is false if there is none; the reason has been reported then.
func (l *loader) eval(expr hcl.Expression, ctx *hcl.EvalContext) (cty.Value, bool) {
	if v, ok := literal(expr); ok {
		return v, true
	}
	if !l.checkReferences(expr, ctx) {
		return cty.NilVal, false
	}
	v, diags := l.evaluate(expr, ctx)
	if diags.HasErrors() {
		return cty.NilVal, false
	}
	// Nothing is unknown but what depends on a fault that has been reported.
	if !v.IsKnown() {
		l.unknown = append(l.unknown, expr.Range())
		return cty.NilVal, false
	}
	return v, true
}

// evaluate calls the expression's Value and keeps what it reports.
func (l *loader) evaluate(expr hcl.Expression, ctx *hcl.EvalContext) (value, hcl.Diagnostics) {
	v, diags := expr.Value(ctx)
	for _, d := range diags {
		call, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallUnknownDiagExtra](d)
		if ok && !strings.Contains(d.Detail, "Did you mean") {
			d.Detail += didYouMean(call.CalledFunctionName(), slices.Sorted(maps.Keys(l.ctx.Functions)))
		}
	}
	l.diags = append(l.diags, diags...)
	return v, diags
}

// literal returns the value of an expression that is a plain string, number or
// keyword. It is the fast way: most expressions of a policy are literals.
func literal(expr hcl.Expression) (cty.Value, bool) {
	switch e := expr.(type) {
	case *hclsyntax.LiteralValueExpr:
		return e.Val, true
	case *hclsyntax.TemplateExpr:
		if e.IsStringLiteral() {
			return e.Parts[0].(*hclsyntax.LiteralValueExpr).Val, true
		}
		return cty.NilVal, false
	case hclsyntax.Expression, *literalList:
		return cty.NilVal, false
	}
	if _, diags := hcl.ExprList(expr); !diags.HasErrors() {
		return cty.NilVal, false
	}
	// JSON: without a context, a string is what it is.
	v, diags := expr.Value(nil)
	if diags.HasErrors() || !v.IsKnown() || v.IsNull() {
		return v, v != cty.NilVal && v.IsKnown() && v.IsNull()
	}
	if v.Type() == cty.String {
		s := v.AsString()
		return v, !strings.Contains(s, "${") && !strings.Contains(s, "%{")
	}
	return v, v.Type().IsPrimitiveType()
}

// checkReferences reports every name in the expression that means nothing. HCL
// would report them too, but in the words of objects and attributes.
func (l *loader) checkReferences(expr hcl.Expression, ctx *hcl.EvalContext) bool {
	ok := true
	for _, t := range expr.Variables() {
		if !l.checkReference(t, ctx) {
			ok = false
		}
	}
	return ok
}

func (l *loader) checkReference(t hcl.Traversal, ctx *hcl.EvalContext) bool {
	root := t.RootName()
	for c := ctx; c != nil && c != l.ctx; c = c.Parent() {
		if _, ok := c.Variables[root]; ok {
			return true // the iterator of a dynamic block
		}
	}
	var known []string
	kind := refKind(refKinds)
	switch root {
	case "var":
		known = l.variableNames()
	case "local":
		known = l.localNames()
	default:
		i := slices.Index(referenceRoots, root)
		if i < 0 {
			l.unknownRoot(t, ctx)
			return false
		}
		kind = refKind(i)
		known = l.names[kind].sorted()
	}

	name, nameRange, ok := secondStep(t)
	if !ok {
		l.errorAt(t.SourceRange(), "Incomplete reference", fmt.Sprintf("A name follows %q and a dot: %s.NAME.", root, root))
		return false
	}
	if _, found := slices.BinarySearch(known, name); !found {
		if l.incomplete {
			return false
		}
		var detail string
		switch root {
		case "var":
			detail = fmt.Sprintf("There is no variable %q.%s", name, orDefine(didYouMean(name, known), fmt.Sprintf("variable %q { … }", name)))
		case "local":
			detail = fmt.Sprintf("There is no local value %q.%s", name, orDefine(didYouMean(name, known), fmt.Sprintf("locals { %s = … }", name)))
		default:
			detail = l.unknownName(kind, name)
		}
		l.errorAt(nameRange, "Unknown "+rootNoun(root), detail)
		return false
	}
	if kind < refKinds && len(t) > 2 {
		l.errorAt(t.SourceRange(), "Reference too long", fmt.Sprintf("The reference itself is the value: write %s.%s and nothing behind it.", root, name))
		return false
	}
	return true
}

// orDefine returns the suggestion, or else advice to define the thing.
func orDefine(suggestion, definition string) string {
	if suggestion != "" {
		return suggestion
	}
	return fmt.Sprintf(" Define it: %s.", definition)
}

var referenceRoots = []string{groupRef: groupRef.root(), listRef: listRef.root(), aclRef: aclRef.root()}

func rootNoun(root string) string {
	switch root {
	case "var":
		return "variable"
	case "local":
		return "local value"
	}
	return refKind(slices.Index(referenceRoots, root)).noun()
}

// unknownName is the sentence about a name that nothing has.
func (l *loader) unknownName(kind refKind, name string) string {
	s := fmt.Sprintf("There is no %s %q.", kind.noun(), name)
	if root, rest, ok := strings.Cut(name, "."); ok && root == kind.root() {
		return s + fmt.Sprintf(" A reference stands without quotes: %s.%s; in quotes stands the name alone: %q.", root, rest, rest)
	}
	return s + orDefine(didYouMean(name, l.names[kind].sorted()), fmt.Sprintf("%s %q { … }", kind.root(), name))
}

// secondStep returns the name behind the root, as in var.office or
// var["office"].
func secondStep(t hcl.Traversal) (string, hcl.Range, bool) {
	if len(t) < 2 {
		return "", hcl.Range{}, false
	}
	switch step := t[1].(type) {
	case hcl.TraverseAttr:
		rng := step.SrcRange
		if rng.End.Byte-rng.Start.Byte == len(step.Name)+1 { // the range has the dot
			rng.Start.Byte++
			rng.Start.Column++
		}
		return step.Name, rng, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			return step.Key.AsString(), step.SrcRange, true
		}
	}
	return "", hcl.Range{}, false
}

// unknownRoot reports a reference that begins with a word that means nothing.
func (l *loader) unknownRoot(t hcl.Traversal, ctx *hcl.EvalContext) {
	roots := slices.Clone(allRoots)
	for c := ctx; c != nil && c != l.ctx; c = c.Parent() {
		roots = slices.AppendSeq(roots, maps.Keys(c.Variables))
	}
	root := t.RootName()
	rng := t[0].SourceRange()
	var detail string
	switch root {
	case "each", "count":
		detail = fmt.Sprintf("There is no %q here: write a dynamic block with for_each, or a for expression.", root)
	case "self":
		detail = "To allow the members of the group itself, write self = true in the rule."
	case "data", "module", "path", "terraform":
		detail = fmt.Sprintf("There is no %q in a policy; use variables.", root)
	case "aws_security_group", "aws_network_acl", "aws_ec2_managed_prefix_list":
		detail = "Here it is security_group.NAME, network_acl.NAME or prefix_list.NAME, without more behind it."
	default:
		if len(t) == 1 {
			detail = fmt.Sprintf("Write text in quotes: %q. ", root)
		}
		detail += fmt.Sprintf("A reference begins with %s.%s", quotedList(roots, "or"), didYouMean(root, roots))
	}
	l.errorAt(rng, "Unknown reference", detail)
}

var allRoots = append([]string{"var", "local"}, referenceRoots...)
