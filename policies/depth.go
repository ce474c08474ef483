package policies

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The parsers, and what walks through what they make, are recursive, and Go
// cannot recover from a stack that overflows: depth is bounded before.
const (
	// maxDepth is the number of brackets that may be open at once.
	maxDepth = 500
	// maxOperators is the number of operators that one expression may hold,
	// with those around the brackets that it stands in: each nests what is
	// beside it by one level.
	maxOperators = 2000
)

// tooDeep finds text that would make the parser recurse too deeply. It counts
// brackets without regard to strings and comments, which hold them in pairs.
func (s *source) tooDeep() *hcl.Diagnostic {
	depth := 0
	for i, c := range s.text {
		switch c {
		case '[', '{', '(':
			depth++
		case ']', '}', ')':
			depth = max(0, depth-1)
		}
		if depth > maxDepth {
			return &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Expression too deep",
				Detail:   fmt.Sprintf("More than %d brackets are open here; close some, or split the expression up.", maxDepth),
				Subject:  s.rangeOf(i, i+1).Ptr(),
			}
		}
	}
	return nil
}

// tooLong finds an expression of so many operators that what the parser makes
// of it is too deep. text is the source's, perhaps with blanks for lists.
func (s *source) tooLong(text []byte) *hcl.Diagnostic {
	at, found := 0, false
	switch {
	case countOperators(text) <= maxOperators: // most files
	case s.isJSON():
		at, found = longStringJSON(text)
	default:
		at, found = longExpression(text)
	}
	if !found {
		return nil
	}
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Expression too long",
		Detail:   fmt.Sprintf("More than %d operators stand in one expression here; split it up, with locals.", maxOperators),
		Subject:  s.rangeOf(at, at+1).Ptr(),
	}
}

// isOperator reports whether a byte is part of an operator, or in JSON of what
// may stand for one. An index nests as well; a dot does not.
func isOperator(c byte) bool {
	switch c {
	case '+', '-', '*', '/', '%', '!', '?', '<', '>', '=', '&', '|', '[', '\\':
		return true
	}
	return false
}

func countOperators(text []byte) int {
	n := 0
	for _, c := range text {
		if isOperator(c) {
			n++
		}
	}
	return n
}

// longStringJSON looks into the strings of a JSON file, where all expressions
// are. Only those with a template sign are any.
func longStringJSON(text []byte) (at int, found bool) {
	inString, template, n := false, false, 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			inString, template, n = !inString, false, 0
			continue
		case !inString:
			continue
		case isOperator(c):
			n++
		}
		// An escape may be a sign as well.
		template = template || c == '$' || c == '%' || c == '\\'
		if c == '\\' {
			i++
		}
		if template && n > maxOperators {
			return min(i, len(text)-1), true
		}
	}
	return 0, false
}

// opened is a bracket or string that is open.
type opened struct {
	// lines is set where the end of a line ends an expression.
	lines bool
	// operators are those of the expression that is under way in it.
	operators int
}

// longExpression looks into a file of HCL's own syntax.
func longExpression(text []byte) (at int, found bool) {
	// What cannot be read as tokens is for the parser to report.
	tokens, _ := hclsyntax.LexConfig(text, "", hcl.InitialPos)
	stack := []opened{{lines: true}}
	total := 0
	for _, t := range tokens {
		top := &stack[len(stack)-1]
		add := 0
		switch t.Type {
		case hclsyntax.TokenOBrace:
			stack = append(stack, opened{lines: true})
		case hclsyntax.TokenOBrack:
			add = 1
			stack = append(stack, opened{})
		case hclsyntax.TokenOParen, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp:
			stack = append(stack, opened{})
		case hclsyntax.TokenTemplateControl:
			// An if or for holds what follows, up to its end.
			add = 1
			stack = append(stack, opened{})
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			total -= top.operators
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			} else {
				top.operators = 0
			}
		case hclsyntax.TokenComma:
			total -= top.operators
			top.operators = 0
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
			if top.lines {
				total -= top.operators
				top.operators = 0
			}
		case hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenPercent,
			hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
			hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenAnd, hclsyntax.TokenOr,
			hclsyntax.TokenBang, hclsyntax.TokenQuestion:
			add = 1
		}
		if add > 0 {
			// The bracket itself counts for what it stands in. append may have
			// moved the stack.
			holder := len(stack) - 1
			if t.Type == hclsyntax.TokenOBrack || t.Type == hclsyntax.TokenTemplateControl {
				holder--
			}
			stack[holder].operators += add
			if total += add; total > maxOperators {
				return t.Range.Start.Byte, true
			}
		}
	}
	return 0, false
}
