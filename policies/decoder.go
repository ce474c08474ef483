package policies

import (
	"fmt"
	"math/big"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// decoder reads the attributes of one block.
type decoder struct {
	l  *loader
	in *instance
	// blocks are the blocks inside, expanded.
	blocks []*instance
	// meant are attributes that are there, but misspelt (see loader.check).
	meant map[string]bool
}

func (l *loader) decode(in *instance, s *schema) *decoder {
	blocks, meant := l.expand(in, s)
	return &decoder{l: l, in: in, blocks: blocks, meant: meant}
}

// decodeTop reads a top-level block.
func (l *loader) decodeTop(d declared) *decoder {
	return l.decode(&instance{block: d.block, ctx: l.ctx}, rootSchema.block(d.kind))
}

// field is what a block says for one attribute. null counts as not set. A
// field is broken if a fault in it has been reported: then it has no value, and
// nothing may be concluded from that.
type field[T any] struct {
	val    T
	set    bool
	broken bool
	// expr is the expression, nil if the attribute does not stand there.
	expr hcl.Expression
	attr *attribute
}

func (f *field[T]) at() hcl.Range { return f.expr.Range() }

// fail reports a fault in a field.
func fail[T any](d *decoder, f *field[T], summary, detail string) {
	d.l.errorIn(f.expr, d.in.ctx, summary, detail)
	f.set, f.broken = false, true
}

// value evaluates an attribute.
func (d *decoder) value(name string) field[value] {
	a := d.in.body.attribute(name)
	if a == nil {
		return field[value]{}
	}
	f := field[value]{expr: a.expr, attr: a}
	v, ok := d.l.eval(a.expr, d.in.ctx)
	switch {
	case !ok:
		f.broken = true
	case !v.IsNull():
		f.val, f.set = v, true
	}
	return f
}

// typed hands a field on with another type of value.
func typed[T any](f field[value]) field[T] {
	return field[T]{set: f.set, broken: f.broken, expr: f.expr, attr: f.attr}
}

// required reports a field that must be there.
func required[T any](d *decoder, f *field[T], name, advice string) {
	if f.set || f.broken {
		return
	}
	f.broken = true
	if !d.meant[name] {
		d.l.errorAt(d.in.header, "Missing "+name, advice)
	}
}

// text reads a string.
func (d *decoder) text(name string) field[string] {
	v := d.value(name)
	f := typed[string](v)
	if !f.set {
		return f
	}
	s, err := convert.Convert(v.val, cty.String)
	if err != nil || s.IsNull() || !s.IsKnown() {
		fail(d, &f, "Wrong type", fmt.Sprintf("%s is text in quotes, not %s.", name, friendly(v.val)))
		return f
	}
	f.val = s.AsString()
	return f
}

// choice reads one of a few words.
func (d *decoder) choice(name string, words ...string) field[string] {
	f := d.text(name)
	if f.set && !slices.Contains(words, f.val) {
		fail(d, &f, "Invalid "+name, fmt.Sprintf("%s is %s, not %s.%s", name, quotedList(words, "or"), quoteShort(f.val), didYouMean(f.val, words)))
	}
	return f
}

// boolean reads true or false.
func (d *decoder) boolean(name string) field[bool] {
	v := d.value(name)
	f := typed[bool](v)
	if !f.set {
		return f
	}
	b, err := convert.Convert(v.val, cty.Bool)
	if err != nil || b.IsNull() || !b.IsKnown() {
		fail(d, &f, "Wrong type", fmt.Sprintf("%s is true or false, not %s.", name, friendly(v.val)))
		return f
	}
	f.val = b.True()
	return f
}

// number reads a whole number between two others.
func (d *decoder) number(name string, least, most int64) field[int] {
	v := d.value(name)
	f := typed[int](v)
	if !f.set {
		return f
	}
	n, problem := integer(v.val)
	switch {
	case problem != "":
		fail(d, &f, "Wrong type", fmt.Sprintf("%s is a whole number, not %s.", name, problem))
	case n.Cmp(big.NewInt(least)) < 0 || n.Cmp(big.NewInt(most)) > 0:
		fail(d, &f, "Out of range", fmt.Sprintf("%s is a number from %d to %d, not %s.", name, least, most, n))
	default:
		f.val = int(n.Int64())
	}
	return f
}

// integer returns a value as a whole number, or the words for what it is
// instead.
func integer(v value) (*big.Int, string) {
	n, err := convert.Convert(v, cty.Number)
	if err != nil || n.IsNull() || !n.IsKnown() {
		return nil, friendly(v)
	}
	f := n.AsBigFloat()
	if f.IsInf() || !f.IsInt() || f.MantExp(nil) > 256 {
		return nil, f.Text('g', 10)
	}
	i, _ := f.Int(nil)
	return i, ""
}

// item is one element of a list.
type item struct {
	val value
	// expr is the element's own expression where the list is written out, else
	// that of the whole list.
	expr hcl.Expression
	// which says which element it is where expr does not.
	which string
}

// list reads a list, set or tuple. Elements are known and not null; a field is
// broken if any element is, but still holds the others.
func (d *decoder) list(name, of string) field[[]item] {
	a := d.in.body.attribute(name)
	if a == nil {
		return field[[]item]{}
	}
	f := field[[]item]{expr: a.expr, attr: a}
	if _, bulk := a.expr.(*literalList); !bulk {
		if exprs, diags := hcl.ExprList(a.expr); !diags.HasErrors() {
			f.set = true
			f.val = make([]item, 0, len(exprs))
			for _, e := range exprs {
				v, ok := d.l.eval(e, d.in.ctx)
				d.addItem(&f, name, of, item{val: v, expr: e}, ok)
			}
			return f
		}
	}
	v := d.value(name)
	f.set, f.broken = v.set, v.broken
	if !f.set {
		return f
	}
	if ty := v.val.Type(); !ty.IsTupleType() && !ty.IsListType() && !ty.IsSetType() {
		fail(d, &f, "Wrong type", fmt.Sprintf("%s is a list of %s, not %s. Put square brackets around it.", name, of, friendly(v.val)))
		return f
	}
	f.val = make([]item, 0, v.val.LengthInt())
	i := 0
	for it := v.val.ElementIterator(); it.Next(); {
		_, e := it.Element()
		i++
		known := e.IsKnown()
		if !known {
			d.l.unknown = append(d.l.unknown, a.expr.Range())
		}
		d.addItem(&f, name, of, item{val: e, expr: a.expr, which: fmt.Sprintf(" (element %d)", i)}, known)
	}
	return f
}

func (d *decoder) addItem(f *field[[]item], name, of string, i item, ok bool) {
	switch {
	case !ok:
		f.broken = true
	case i.val.IsNull():
		d.l.errorIn(i.expr, d.in.ctx, "Wrong type", fmt.Sprintf("%s is a list of %s, and null%s is none.", name, of, i.which))
		f.broken = true
	default:
		f.val = append(f.val, i)
	}
}

// anyMeant reports whether one of the attributes is there, but misspelt.
func (d *decoder) anyMeant(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return d.meant[name] })
}

// description reads and checks a description.
func (d *decoder) description() string {
	f := d.text("description")
	if f.set {
		if problem := textProblem(f.val); problem != "" {
			fail(d, &f, "Invalid description", problem)
		}
	}
	return f.val
}

// only returns the one block of a kind, or nil, and reports others.
func (d *decoder) only(kind string) *instance {
	var first *instance
	for _, b := range d.blocks {
		if b.kind != kind {
			continue
		}
		if first != nil {
			d.l.errorAt(b.header, "Second "+kind+" block", fmt.Sprintf("The first one is at line %d; put both into one.", d.l.pos(first.header).Line))
			continue
		}
		first = b
	}
	return first
}

// description checks the description of a block that is read by hand.
func (l *loader) description(b *block) {
	d := &decoder{l: l, in: &instance{block: b, ctx: l.ctx}}
	d.description()
}
