package policies

import (
	"cmp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// body is the content of a file or of a block, the same for both syntaxes.
//
// HCL's own hcl.Body wants a fixed number of labels for each type of block;
// here a rule's label may be missing, so the language has a tree of its own.
type body struct {
	// attributes and blocks are in the order of the source.
	attributes []*attribute
	blocks     []*block
}

// attribute is one name = expression.
type attribute struct {
	name      string
	nameRange hcl.Range
	expr      hcl.Expression
}

// block is one block, as it stands in the source: "dynamic" blocks are not
// expanded.
type block struct {
	kind      string
	kindRange hcl.Range
	labels    []label
	// header is the range from the type of the block to its last label.
	header hcl.Range
	body   *body
}

// label is one label of a block.
type label struct {
	text string
	rng  hcl.Range
}

// attribute returns the attribute of that name, or nil.
func (b *body) attribute(name string) *attribute {
	for _, a := range b.attributes {
		if a.name == name {
			return a
		}
	}
	return nil
}

// nativeBody converts a body of the native syntax. Lists that stand in bulk
// are put back where the parser saw an empty list.
func nativeBody(in *hclsyntax.Body, lists *bulk) *body {
	out := &body{
		attributes: make([]*attribute, 0, len(in.Attributes)),
		blocks:     make([]*block, 0, len(in.Blocks)),
	}
	for _, a := range in.Attributes {
		out.attributes = append(out.attributes, &attribute{
			name:      a.Name,
			nameRange: a.NameRange,
			expr:      lists.restore(a.Expr),
		})
	}
	// The parser keeps attributes in a map.
	slices.SortFunc(out.attributes, func(a, b *attribute) int {
		return cmp.Compare(a.nameRange.Start.Byte, b.nameRange.Start.Byte)
	})
	for _, b := range in.Blocks {
		labels := make([]label, len(b.Labels))
		for i, text := range b.Labels {
			labels[i] = label{text, b.LabelRanges[i]}
		}
		out.blocks = append(out.blocks, &block{
			kind:      b.Type,
			kindRange: b.TypeRange,
			labels:    labels,
			header:    b.DefRange(),
			body:      nativeBody(b.Body, lists),
		})
	}
	return out
}
