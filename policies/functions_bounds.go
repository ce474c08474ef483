package policies

import (
	"math/big"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// A slip of the pen must not exhaust the machine: here are the bounds of what
// functions make out of little.
const (
	// maxText is the most bytes that one value may hold.
	maxText = 64 << 20
	// maxElements is the most elements that one value may have.
	maxElements = 1 << 22
	// maxProduct is the most elements that setproduct makes: each is a tuple.
	maxProduct = 1 << 18
	// maxWidth is the most characters that format and indent pad.
	maxWidth = 9999
)

// bounded is a function whose arguments are checked first.
func bounded(f function.Function, check func(args []value) error) function.Function {
	return function.New(&function.Spec{
		Description: f.Description(),
		Params:      f.Params(),
		VarParam:    f.VarParam(),
		Type: func(args []value) (cty.Type, error) {
			// The type may depend on the values, and be as costly.
			if err := check(args); err != nil {
				return cty.NilType, err
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []value, _ cty.Type) (value, error) { return f.Call(args) },
	})
}

// boundProduct holds for setproduct.
func boundProduct(args []value) error {
	total := 1
	for i, a := range args {
		if !a.IsKnown() || a.IsNull() || !a.CanIterateElements() {
			return nil // the function says what it needs
		}
		n := a.LengthInt()
		if n == 0 {
			return nil
		}
		if n > maxProduct/total {
			return function.NewArgErrorf(i, "the product would have more than %d elements", maxProduct)
		}
		total *= n
	}
	return nil
}

// boundJSON holds for jsondecode, which is recursive. Brackets in strings come
// in pairs or there are few of them.
func boundJSON(args []value) error {
	if !args[0].IsKnown() || args[0].IsNull() {
		return nil
	}
	depth, inString := 0, false
	text := args[0].AsString()
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return function.NewArgErrorf(0, "more than %d brackets are open at once", maxDepth)
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}

// boundIndent holds for indent.
func boundIndent(args []value) error {
	if !args[0].IsKnown() || args[0].IsNull() {
		return nil
	}
	if args[0].AsBigFloat().Cmp(big.NewFloat(maxWidth)) > 0 {
		return function.NewArgErrorf(0, "lines are indented by at most %d characters", maxWidth)
	}
	return nil
}

// boundFormat holds for format and formatlist: a width or precision has at
// most four digits.
func boundFormat(args []value) error {
	if len(args) == 0 || !args[0].IsKnown() || args[0].IsNull() || args[0].Type() != cty.String {
		return nil
	}
	text := args[0].AsString()
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			continue
		}
		digits := 0
		for i++; i < len(text); i++ {
			switch c := text[i]; {
			case c >= '0' && c <= '9':
				if digits++; digits > len("9999") {
					return function.NewArgErrorf(0, "a width or precision is at most %d", maxWidth)
				}
				continue
			case c == '.' || c == '[' || c == ']' || c == ' ' || c == '+' || c == '-' || c == '#':
				digits = 0
				continue
			}
			break
		}
	}
	return nil
}

// tooBig returns what is too much about a value, or "".
func tooBig(v value) string {
	switch {
	case !v.IsKnown() || v.IsNull():
	case v.Type() == cty.String && len(v.AsString()) > maxText:
		return "The text is longer than 64 MiB."
	case v.Type() != cty.String && v.CanIterateElements() && v.LengthInt() > maxElements:
		return "The value has more than 4 million elements."
	}
	return ""
}
