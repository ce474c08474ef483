package policies

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	hcljson "github.com/hashicorp/hcl/v2/json"
)

// parseJSON reads a file of HCL's JSON syntax. JSON does not tell a block from
// an attribute, so the schema does: a property that the schema knows as a type
// of block is one, every other property is an attribute.
//
// text is the text of the file with blanks for lists.
func parseJSON(text []byte, filename string, lists *bulk, s *schema) (*body, hcl.Diagnostics) {
	expr, diags := hcljson.ParseExpression(text, filename)
	if diags.HasErrors() {
		return nil, diags
	}
	c := jsonConverter{lists: lists}
	b := &body{}
	c.fill(b, expr, s)
	return b, append(diags, c.diags...)
}

// jsonComment is the name of properties that count as comments, by HCL's
// convention.
const jsonComment = "//"

type jsonConverter struct {
	lists *bulk
	diags hcl.Diagnostics
}

// fill adds the properties of one object, or of all objects of an array, to b.
func (c *jsonConverter) fill(b *body, expr hcl.Expression, s *schema) {
	for _, object := range elementsOf(expr) {
		pairs, diags := hcl.ExprMap(object)
		if diags.HasErrors() {
			c.wrongType(object, "A JSON object is needed here, with the arguments and blocks as its properties.")
			continue
		}
		for _, p := range pairs {
			name, ok := c.key(p)
			if !ok || name == jsonComment {
				continue
			}
			rng := p.Key.Range()
			switch sub := s.block(name); {
			case sub != nil:
				c.blocks(b, p, name, sub)
			case name == dynamicType && len(s.blocks) > 0:
				c.dynamics(b, p, s)
			default:
				if old := b.attribute(name); old != nil {
					c.diags = append(c.diags, &hcl.Diagnostic{
						Severity: hcl.DiagError,
						Summary:  "Argument set twice",
						Detail:   fmt.Sprintf("%q was already set at line %d. Remove one of the two.", name, old.nameRange.Start.Line),
						Subject:  &rng,
					})
					continue
				}
				b.attributes = append(b.attributes, &attribute{name: name, nameRange: rng, expr: c.lists.restoreJSON(p.Value)})
			}
		}
	}
}

// key returns the literal name of a property.
func (c *jsonConverter) key(p hcl.KeyValuePair) (string, bool) {
	v, diags := p.Key.Value(nil)
	c.diags = append(c.diags, diags...)
	if diags.HasErrors() {
		return "", false
	}
	return v.AsString(), true
}

// blocks adds the blocks of one type that a property holds.
func (c *jsonConverter) blocks(b *body, p hcl.KeyValuePair, kind string, s *schema) {
	// add takes one block in; its header is what tells it from its neighbours.
	add := func(labels []label, content hcl.Expression, alone bool) {
		blk := &block{kind: kind, kindRange: p.Key.Range(), labels: labels, header: p.Key.Range(), body: &body{}}
		if !alone {
			blk.header = content.StartRange()
		} else if len(labels) > 0 {
			blk.header = labels[len(labels)-1].rng
		}
		c.fill(blk.body, content, s)
		b.blocks = append(b.blocks, blk)
	}
	elements := elementsOf(p.Value)
	for _, e := range elements {
		if isJSONNull(e) {
			continue
		}
		if s.label == noLabel || s.label == optionalLabel && !holdsLabels(e) {
			add(nil, e, len(elements) == 1)
			continue
		}
		pairs, diags := hcl.ExprMap(e)
		if diags.HasErrors() {
			c.wrongType(e, fmt.Sprintf("A JSON object is needed here, whose property names are the names of the %s blocks.", kind))
			continue
		}
		for _, l := range pairs {
			text, ok := c.key(l)
			if !ok || text == jsonComment {
				continue
			}
			contents := elementsOf(l.Value)
			for _, content := range contents {
				if !isJSONNull(content) {
					add([]label{{text, l.Key.Range()}}, content, len(contents) == 1)
				}
			}
		}
	}
}

// dynamics adds the dynamic blocks of a body, {"dynamic": {"ingress": {…}}}.
func (c *jsonConverter) dynamics(b *body, p hcl.KeyValuePair, s *schema) {
	for _, e := range elementsOf(p.Value) {
		pairs, diags := hcl.ExprMap(e)
		if diags.HasErrors() {
			c.wrongType(e, "A JSON object is needed here, whose property names are the types of the blocks to generate.")
			continue
		}
		for _, target := range pairs {
			text, ok := c.key(target)
			if !ok || text == jsonComment {
				continue
			}
			for _, content := range elementsOf(target.Value) {
				blk := &block{
					kind:      dynamicType,
					kindRange: p.Key.Range(),
					labels:    []label{{text, target.Key.Range()}},
					header:    target.Key.Range(),
					body:      &body{},
				}
				inner := s.block(text)
				if inner == nil {
					inner = &schema{} // reported when the block is expanded
				}
				c.fill(blk.body, content, dynamicSchema(inner))
				b.blocks = append(b.blocks, blk)
			}
		}
	}
}

func (c *jsonConverter) wrongType(at hcl.Expression, detail string) {
	c.diags = append(c.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Wrong JSON value",
		Detail:   detail,
		Subject:  at.Range().Ptr(),
	})
}

// elementsOf returns the elements of an array, or the one expression that is
// none.
func elementsOf(expr hcl.Expression) []hcl.Expression {
	if list, diags := hcl.ExprList(expr); !diags.HasErrors() {
		return list
	}
	return []hcl.Expression{expr}
}

// holdsLabels reports whether an object for a block with an optional label has
// labels as its properties, rather than arguments. Rules hold no objects, so
// an object whose values are all objects is one of labels.
func holdsLabels(expr hcl.Expression) bool {
	pairs, diags := hcl.ExprMap(expr)
	if diags.HasErrors() || len(pairs) == 0 {
		return false
	}
	labels := false
	for _, p := range pairs {
		if k, d := p.Key.Value(nil); !d.HasErrors() && k.AsString() == jsonComment {
			continue
		}
		for _, e := range elementsOf(p.Value) {
			if _, diags := hcl.ExprMap(e); diags.HasErrors() {
				return false
			}
			labels = true
		}
	}
	return labels
}

func isJSONNull(expr hcl.Expression) bool {
	v, diags := expr.Value(nil)
	return !diags.HasErrors() && v.IsNull()
}
