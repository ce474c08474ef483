package policies

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// instance is a block as it counts: one that stands in the file, or one that a
// dynamic block generated. Its expressions are evaluated in ctx.
type instance struct {
	*block
	ctx *hcl.EvalContext
	// generated blocks stand in a dynamic block; diagnostics name the element
	// then.
	generated bool
}

// label returns the text and place of the block's label, or "" and its header.
func (i *instance) label() (string, hcl.Range) {
	if len(i.labels) == 0 {
		return "", i.header
	}
	return i.labels[0].text, i.labels[0].rng
}

// expand checks the body of a block and returns the blocks in it, with the
// dynamic ones expanded, in order.
func (l *loader) expand(in *instance, s *schema) (out []*instance, meant map[string]bool) {
	blocks, meant := l.check(in.body, s)
	for _, b := range blocks {
		if b.kind == dynamicType {
			out = append(out, l.expandDynamic(b, in.ctx, s)...)
			continue
		}
		out = append(out, &instance{block: b, ctx: in.ctx, generated: in.generated})
	}
	return out, meant
}

// expandDynamic returns the blocks that a dynamic block generates.
func (l *loader) expandDynamic(b *block, ctx *hcl.EvalContext, s *schema) []*instance {
	if len(b.labels) != 1 {
		l.errorAt(b.header, "Dynamic block without a type", fmt.Sprintf("A dynamic block has one label, the type of the blocks to generate: %s.", quotedList(s.blockNames(), "or")))
		return nil
	}
	kind := b.labels[0].text
	target := s.block(kind)
	if target == nil {
		l.errorAt(b.labels[0].rng, "Unknown type of block", fmt.Sprintf("A block of type %s has no blocks of type %q.%s", s.kind, kind, didYouMean(kind, s.blockNames())))
		return nil
	}
	known, meant := l.check(b.body, dynamicSchema(target))
	var content *block
	for _, c := range known {
		if c.kind != "content" {
			continue // a dynamic block beside the content
		}
		if content != nil {
			l.errorAt(c.header, "Second content block", "A dynamic block has one content block; remove this one.")
			return nil
		}
		content = c
	}
	if content == nil {
		l.errorAt(b.header, "Dynamic block without content", "Add a content { … } block: it is the body of every block that is generated.")
		return nil
	}
	iterator := kind
	if a := b.body.attribute("iterator"); a != nil {
		t, diags := hcl.AbsTraversalForExpr(a.expr)
		if diags.HasErrors() || len(t) != 1 {
			l.errorAt(a.expr.Range(), "Invalid iterator", "An iterator is one word without quotes, such as iterator = rule.")
			return nil
		}
		iterator = t.RootName()
	}
	each := b.body.attribute("for_each")
	if each == nil && meant["for_each"] {
		return nil
	}
	if each == nil {
		l.errorAt(b.header, "Dynamic block without for_each", "Add for_each = …, a list, set or map with an element for every block to generate.")
		return nil
	}
	over, ok := l.eval(each.expr, ctx)
	if !ok {
		return nil
	}
	if over.IsNull() || !over.CanIterateElements() {
		l.errorAt(each.expr.Range(), "Invalid for_each", fmt.Sprintf("A list, set or map is needed here, not %s.", friendly(over)))
		return nil
	}

	var out []*instance
	for it := over.ElementIterator(); it.Next(); {
		key, v := it.Element()
		if over.Type().IsSetType() {
			key = v // the elements of a set have no other key
		}
		child := ctx.NewChild()
		child.Variables = map[string]value{
			iterator: cty.ObjectVal(map[string]value{"key": key, "value": v}),
		}
		made := &block{kind: kind, kindRange: b.labels[0].rng, header: b.header, body: content.body}
		if made.labels, ok = l.dynamicLabels(b, child, target); !ok {
			continue
		}
		out = append(out, &instance{block: made, ctx: child, generated: true})
	}
	return out
}

// dynamicLabels evaluates the labels of one block that is generated.
func (l *loader) dynamicLabels(b *block, ctx *hcl.EvalContext, target *schema) ([]label, bool) {
	a := b.body.attribute("labels")
	if a == nil {
		if target.label == oneLabel {
			l.errorAt(b.header, "Missing name", fmt.Sprintf("A block of type %s needs a name: add labels = […].", target.kind))
			return nil, false
		}
		return nil, true
	}
	exprs, diags := hcl.ExprList(a.expr)
	if diags.HasErrors() {
		l.errorAt(a.expr.Range(), "Invalid labels", fmt.Sprintf("The labels are written as a list with one element, such as labels = [%s.key].", target.kind))
		return nil, false
	}
	if target.label == noLabel && len(exprs) > 0 || len(exprs) > 1 {
		l.errorAt(a.expr.Range(), "Unexpected label", fmt.Sprintf("A block of type %s takes %s.", target.kind,
			map[bool]string{true: "no label", false: "one label"}[target.label == noLabel]))
		return nil, false
	}
	var out []label
	for _, e := range exprs {
		v, ok := l.eval(e, ctx)
		if !ok {
			return nil, false
		}
		text, err := convert.Convert(v, cty.String)
		if err != nil || text.IsNull() {
			l.errorIn(e, ctx, "Invalid label", fmt.Sprintf("A label is text, not %s.", friendly(v)))
			return nil, false
		}
		out = append(out, label{text.AsString(), e.Range()})
	}
	return out, true
}

// errorIn reports a fault of an expression, with the values of the names in
// it where it stands in a dynamic block.
func (l *loader) errorIn(expr hcl.Expression, ctx *hcl.EvalContext, summary, detail string) {
	l.errorAt(expr.Range(), summary, detail)
	if ctx != l.ctx {
		d := l.diags[len(l.diags)-1]
		d.Expression, d.EvalContext = expr, ctx
	}
}

// friendly names a value in a sentence.
func friendly(v value) string {
	if v.IsNull() {
		return "null"
	}
	if k, name, ok := reference(v); ok {
		return k.root() + "." + name
	}
	switch v.Type() {
	case cty.String:
		return fmt.Sprintf("the text %s", quoteShort(v.AsString()))
	case cty.Number:
		return "the number " + v.AsBigFloat().Text('g', 10)
	case cty.Bool:
		return fmt.Sprint(v.True())
	}
	switch ty := v.Type(); {
	case ty.IsTupleType(), ty.IsListType():
		return "a list"
	case ty.IsSetType():
		return "a set"
	case ty.IsObjectType(), ty.IsMapType():
		return "a map"
	}
	return "a value of type " + v.Type().FriendlyName()
}

// quoteShort quotes text, and cuts it where it is long.
func quoteShort(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%q…", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}
