package policies

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// ScenarioExtension ends the names of the lab's scenarios. They are in HCL, may
// lie beside a policy, and are no part of it.
const ScenarioExtension = ".lab.hcl"

func isScenarioName(name string) bool { return strings.HasSuffix(name, ScenarioExtension) }

// LoadText reads a policy that stands in a text, such as a part of a file in
// which the rest is blanks: name is that of the file, and files that the policy
// names are looked for in dir.
func LoadText(name string, text []byte, dir string, in Inputs) *Loaded {
	l := newLoader(in)
	l.dir = dir
	src := l.addSource(name, text)
	l.read[name] = true
	b, diags := src.parse(rootSchema)
	l.diags = append(l.diags, diags...)
	if b == nil {
		l.incomplete = true
		return l.finish(l.policy(nil))
	}
	return l.finish(l.policy([]*body{b}))
}

// Functions returns the functions of the language, for others that are made of
// HCL. Relative paths start from dir.
func Functions(dir string) map[string]function.Function {
	l := newLoader(Inputs{})
	l.dir = dir
	return l.functions()
}

// Suggest returns the sentence that offers the candidate that was probably meant
// by name, with a space before it, or "".
func Suggest(name string, candidates []string) string { return didYouMean(name, candidates) }

// Friendly names a value in a sentence: "the text \"x\"", "a list".
func Friendly(v cty.Value) string { return friendly(v) }

// TooDeep finds text in HCL's own syntax that nests so deeply that its parser
// would not survive, nil for none. Ask it before a text of somebody else is
// parsed.
func TooDeep(name string, text []byte) *hcl.Diagnostic {
	s := &source{name: name, text: text}
	if d := s.tooDeep(); d != nil {
		return d
	}
	return s.tooLong(text)
}
