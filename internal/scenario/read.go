package scenario

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"sgc/policies"
)

// loader holds what a load knows so far. Its methods report faults and go on.
type loader struct {
	file  string
	text  []byte
	diags hcl.Diagnostics
	ctx   *hcl.EvalContext
}

func (l *loader) errorAt(at hcl.Range, summary, format string, args ...any) {
	l.diags = append(l.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &at,
	})
}

// reader reads the attributes of one block.
type reader struct {
	l     *loader
	kind  string
	label string
	// labelAt is the label's place, or the header's where there is none.
	labelAt, header hcl.Range
	body            *hclsyntax.Body
	// meant are attributes that are there, but misspelt: they are not reported
	// as missing.
	meant map[string]bool
}

// open checks a block against its shape.
func (l *loader) open(b *hclsyntax.Block) *reader {
	r := &reader{l: l, kind: b.Type, header: b.DefRange(), labelAt: b.DefRange(), body: b.Body, meant: map[string]bool{}}
	s := shapes[b.Type]
	switch {
	case len(b.Labels) > 0 && s.label == "":
		l.errorAt(b.LabelRanges[0], "Unexpected label", "A block of type %s takes no label.", b.Type)
	case len(b.Labels) > 1:
		l.errorAt(b.LabelRanges[1], "Unexpected label", "A block of type %s takes one label, the %s.", b.Type, s.label)
	case len(b.Labels) == 0 && s.label != "" && !s.optional:
		l.errorAt(b.DefRange(), "Missing label", "Write the %s behind it: %s \"…\" { … }.", s.label, b.Type)
	}
	if len(b.Labels) > 0 {
		r.label, r.labelAt = b.Labels[0], b.LabelRanges[0]
		if strings.TrimSpace(r.label) == "" && s.label != "" {
			l.errorAt(r.labelAt, "Missing label", "The %s is empty.", s.label)
		}
	}
	r.check(s)
	return r
}

// check reports names that mean nothing here.
func (r *reader) check(s shape) {
	if s.free {
		return
	}
	for _, a := range sortedAttributes(r.body) {
		if slices.Contains(s.attributes, a.Name) {
			continue
		}
		var detail string
		if slices.Contains(s.blocks, a.Name) {
			detail = fmt.Sprintf(" %s is a block: write %s%s { … }.", a.Name, a.Name, map[bool]string{true: ` "…"`}[shapes[a.Name].label != ""])
		} else if detail = policies.Suggest(a.Name, s.attributes); detail != "" {
			r.mean(detail, s.attributes)
		} else if len(s.attributes) > 0 {
			detail = " There are: " + strings.Join(s.attributes, ", ") + "."
		}
		r.l.errorAt(a.NameRange, "Unknown attribute", "%s has no %q.%s", r.what(), a.Name, detail)
	}
	for _, b := range r.body.Blocks {
		if slices.Contains(s.blocks, b.Type) {
			continue
		}
		var detail string
		if slices.Contains(s.attributes, b.Type) {
			detail = fmt.Sprintf(" %s is an attribute: write %s = ….", b.Type, b.Type)
			r.meant[b.Type] = true
		} else if detail = policies.Suggest(b.Type, s.blocks); detail == "" && len(s.blocks) > 0 {
			detail = " There are: " + strings.Join(s.blocks, ", ") + "."
		}
		r.l.errorAt(b.DefRange(), "Unknown block", "%s has no block %q.%s", r.what(), b.Type, detail)
	}
}

func (r *reader) mean(suggestion string, attributes []string) {
	for _, a := range attributes {
		if strings.Contains(suggestion, fmt.Sprintf("%q", a)) {
			r.meant[a] = true
		}
	}
}

func (r *reader) what() string {
	if r.kind == "" {
		return "A scenario"
	}
	return "A block of type " + r.kind
}

// blocks returns the blocks of a kind.
func (r *reader) blocks(kind string) []*hclsyntax.Block {
	var out []*hclsyntax.Block
	for _, b := range r.body.Blocks {
		if b.Type == kind {
			out = append(out, b)
		}
	}
	return out
}

func sortedAttributes(b *hclsyntax.Body) []*hclsyntax.Attribute {
	var out []*hclsyntax.Attribute
	for _, a := range b.Attributes {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *hclsyntax.Attribute) int { return a.NameRange.Start.Byte - b.NameRange.Start.Byte })
	return out
}

// place is where an attribute's value stands, or the block's header.
func (r *reader) place(name string) hcl.Range {
	if a := r.body.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return r.header
}

// has reports whether the attribute is there, or is meant to be. One that is null
// is not there.
func (r *reader) has(name string) bool {
	a := r.body.Attributes[name]
	if a == nil {
		return r.meant[name]
	}
	v, diags := a.Expr.Value(r.l.ctx)
	return diags.HasErrors() || !v.IsNull()
}

// value evaluates an attribute; false if it is not there, is null, or is wrong,
// which has been reported then.
func (r *reader) value(name string) (cty.Value, bool) {
	a := r.body.Attributes[name]
	if a == nil {
		return cty.NilVal, false
	}
	return r.l.eval(a.Expr)
}

func (l *loader) eval(e hcl.Expression) (cty.Value, bool) {
	if !l.checkReferences(e) {
		return cty.NilVal, false
	}
	v, diags := e.Value(l.ctx)
	l.diags = append(l.diags, diags...)
	if diags.HasErrors() || v.IsNull() || !v.IsWhollyKnown() {
		return cty.NilVal, false
	}
	return v, true
}

// checkReferences reports names that mean nothing. HCL would report them too,
// but in the words of objects and attributes.
func (l *loader) checkReferences(e hcl.Expression) bool {
	ok := true
	for _, t := range e.Variables() {
		at, known := t[0].SourceRange(), l.ctx.Variables[t.RootName()]
		if known == cty.NilVal {
			roots := slices.Sorted(maps.Keys(l.ctx.Variables))
			l.errorAt(at, "Unknown reference", "There is no %q. A reference begins with %s.%s", t.RootName(), alternatives(roots), policies.Suggest(t.RootName(), roots))
			ok = false
			continue
		}
		step, isName := second(t)
		if !isName || !known.Type().IsObjectType() || known.Type().HasAttribute(step) {
			continue
		}
		names := slices.Sorted(maps.Keys(known.Type().AttributeTypes()))
		noun := map[string]string{"local": "local value"}[t.RootName()]
		if noun == "" {
			noun = t.RootName()
		}
		l.errorAt(t.SourceRange(), "Unknown "+noun, "There is no %s %q.%s", noun, step, orList(policies.Suggest(step, names), names))
		ok = false
	}
	return ok
}

func (r *reader) wrong(name, want string, v cty.Value) {
	r.l.errorAt(r.place(name), "Wrong type", "%s is %s, not %s.", name, want, policies.Friendly(v))
}

// required reports a missing attribute.
func (r *reader) required(name, advice string) {
	if !r.has(name) {
		r.l.errorAt(r.header, "Missing "+name, "%s", advice)
	}
}

func (r *reader) string(name string) (string, bool) {
	v, ok := r.value(name)
	if !ok {
		return "", false
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil {
		r.wrong(name, "text in quotes", v)
		return "", false
	}
	return s.AsString(), true
}

// choice reads one of a few words; "" if it is none of them.
func (r *reader) choice(name string, words ...string) string {
	s, ok := r.string(name)
	if !ok || slices.Contains(words, s) {
		return s
	}
	r.l.errorAt(r.place(name), "Unknown "+name, "%s is %s, not %q.%s", name, alternatives(words), s, policies.Suggest(s, words))
	return ""
}

// alternatives writes words as a sentence has them.
func alternatives(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	return strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
}

func (r *reader) bool(name string) (value, ok bool) {
	v, ok := r.value(name)
	if !ok {
		return false, false
	}
	b, err := convert.Convert(v, cty.Bool)
	if err != nil {
		r.wrong(name, "true or false", v)
		return false, false
	}
	return b.True(), true
}

// optionalBool is nil where the attribute is not set.
func (r *reader) optionalBool(name string) *bool {
	if b, ok := r.bool(name); ok {
		return &b
	}
	return nil
}

func (r *reader) number(name string, least, most int64) (int, bool) {
	v, ok := r.value(name)
	if !ok {
		return 0, false
	}
	n, err := convert.Convert(v, cty.Number)
	if err != nil || !n.AsBigFloat().IsInt() {
		r.wrong(name, "a whole number", v)
		return 0, false
	}
	i, _ := n.AsBigFloat().Int(nil)
	if i.Cmp(big.NewInt(least)) < 0 || i.Cmp(big.NewInt(most)) > 0 {
		r.l.errorAt(r.place(name), "Out of range", "%s is a number from %d to %d, not %s.", name, least, most, i)
		return 0, false
	}
	return int(i.Int64()), true
}

func (r *reader) optionalNumber(name string, least, most int64) *int {
	if n, ok := r.number(name, least, most); ok {
		return &n
	}
	return nil
}

// texts reads a list of texts, each with its place.
func (r *reader) texts(name string) []placed {
	a := r.body.Attributes[name]
	if a == nil {
		return nil
	}
	if exprs, diags := hcl.ExprList(a.Expr); !diags.HasErrors() {
		var out []placed
		for _, e := range exprs {
			if v, ok := r.l.eval(e); ok {
				out = r.addText(out, name, v, e.Range())
			}
		}
		return out
	}
	v, ok := r.value(name)
	if !ok {
		return nil
	}
	if ty := v.Type(); !ty.IsTupleType() && !ty.IsListType() && !ty.IsSetType() {
		r.l.errorAt(r.place(name), "Wrong type", "%s is a list, not %s. Put square brackets around it.", name, policies.Friendly(v))
		return nil
	}
	var out []placed
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		out = r.addText(out, name, e, a.Expr.Range())
	}
	return out
}

// placed is a text and where it stands.
type placed struct {
	text string
	at   hcl.Range
}

func (r *reader) addText(out []placed, name string, v cty.Value, at hcl.Range) []placed {
	if v.IsNull() || v.Type() != cty.String {
		r.l.errorAt(at, "Wrong type", "%s is a list of texts in quotes, and %s is none.", name, policies.Friendly(v))
		return out
	}
	return append(out, placed{v.AsString(), at})
}
