package policies

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// value is a short name for what expressions yield.
type value = cty.Value

// variables are the variable blocks and their values. A variable whose value
// is faulty has an unknown one, so that what uses it adds no faults of its own.
type variables struct {
	names  declarations
	blocks map[string]*block
	values map[string]value
	// excused are variables without a value, for a reason that has been
	// reported: an input has nearly their name. all is set if a file of values
	// could not be read.
	excused map[string]bool
	all     bool
}

func (l *loader) variableNames() []string { return l.variables.names.sorted() }

// given is a value for a variable from outside.
type given struct {
	// text is the value of --var and the environment. It is nil for values
	// from files, which have an expression.
	text *source
	// start is the offset in text where the value begins.
	start int
	expr  hcl.Expression
	// at is the name of the variable, to say that there is none.
	at hcl.Range
	// from is the place in a sentence.
	from string
}

const environPrefix = "SGC_VAR_"

// resolveVariables finds the value of every variable.
func (l *loader) resolveVariables() {
	inputs := map[string]given{}
	for _, e := range l.in.Environ {
		name, text, ok := strings.Cut(strings.TrimPrefix(e, environPrefix), "=")
		if ok && strings.HasPrefix(e, environPrefix) && l.variables.names.has(name) {
			inputs[name] = l.givenText("environment variable "+environPrefix+name, "", text)
		}
	}
	for _, path := range l.in.Files {
		l.readVarFile(path, inputs)
	}
	for i, v := range l.in.Values {
		name, text, ok := strings.Cut(v, "=")
		name = strings.TrimSpace(name)
		from := fmt.Sprintf("--var (no. %d)", i+1)
		if len(l.in.Values) == 1 {
			from = "--var"
		}
		if !ok {
			src := l.addSource(from, []byte(v))
			l.errorAt(src.rangeOf(0, len(v)), "No value for a variable", `A variable is set by its name, an equals sign and the value: --var "name=value".`)
			continue
		}
		g := l.givenText(from, v[:len(v)-len(text)], text)
		if l.isVariable(name, g) {
			inputs[name] = g
		}
	}
	for _, c := range l.in.Constants {
		g := given{expr: hcl.StaticExpr(c.Value, c.At), at: c.NameAt, from: c.From}
		if l.isVariable(c.Name, g) {
			inputs[c.Name] = g
		}
	}
	for name, b := range l.variables.blocks {
		g, set := inputs[name]
		l.variables.values[name] = l.variable(b, g, set)
	}
}

// isVariable reports an input for a variable that does not exist.
func (l *loader) isVariable(name string, g given) bool {
	if l.variables.names.has(name) {
		return true
	}
	if n := nearest(name, l.variableNames()); n != "" {
		l.variables.excused[n] = true
	}
	if !l.incomplete {
		l.errorAt(g.at, "Unknown variable", fmt.Sprintf("The policy has no variable %q, which %s sets.%s",
			name, g.from, orDefine(didYouMean(name, l.variableNames()), fmt.Sprintf("variable %q { … }", name))))
	}
	return false
}

func (l *loader) givenText(from, prefix, text string) given {
	src := l.addSource(from, []byte(prefix+text))
	return given{text: src, start: len(prefix), at: src.rangeOf(0, len(strings.TrimSuffix(prefix, "="))), from: from}
}

// valuesSchema is that of a file of variables.
var valuesSchema = &schema{free: true}

// readVarFile takes in the values of a file.
func (l *loader) readVarFile(path string, inputs map[string]given) {
	src, err := l.readSource(path)
	if err != nil {
		l.cannotRead("file of variables", path, err)
		l.variables.all = true
		return
	}
	b, diags := src.parse(valuesSchema)
	l.diags = append(l.diags, diags...)
	if b == nil {
		l.variables.all = true
		return
	}
	for _, blk := range b.blocks {
		l.errorAt(blk.kindRange, "Unexpected block", "A file of variables holds name = value lines only; blocks belong into the policy.")
	}
	for _, a := range b.attributes {
		name, g := a.name, given{expr: a.expr, at: a.nameRange, from: "this file"}
		if l.isVariable(name, g) {
			inputs[name] = g
		}
	}
}

// variable returns the value of one variable.
func (l *loader) variable(b *block, g given, set bool) value {
	broken := cty.DynamicVal
	ty := cty.DynamicPseudoType
	var defaults *typeexpr.Defaults
	typed := false
	if a := b.body.attribute("type"); a != nil {
		var diags hcl.Diagnostics
		ty, defaults, diags = typeexpr.TypeConstraintWithDefaults(a.expr)
		l.diags = append(l.diags, diags...)
		if diags.HasErrors() {
			return broken
		}
		typed = true
	}
	l.description(b)

	// The default is checked even where another value replaces it.
	fallback, hasDefault := cty.NilVal, false
	if a := b.body.attribute("default"); a != nil {
		hasDefault = true
		v, diags := a.expr.Value(nil)
		l.diags = append(l.diags, diags...)
		if diags.HasErrors() {
			return broken
		}
		fallback, hasDefault = l.convertVariable(v, ty, defaults, a.expr.Range(), "default")
		if !hasDefault {
			return broken
		}
		if !typed && !fallback.IsNull() {
			ty = fallback.Type()
			if !ty.IsPrimitiveType() {
				ty = cty.DynamicPseudoType // a list of another length is another type
				typed = true
			}
		}
	}
	switch {
	case !set && hasDefault:
		return fallback
	case !set:
		if name := b.labels[0].text; !l.incomplete && !l.variables.all && !l.variables.excused[name] {
			how := fmt.Sprintf("Set it with --var %q, in a file named by --var-file, or in the environment as %s%s.", name+"=…", environPrefix, name)
			if l.in.HowToSet != nil {
				how = l.in.HowToSet(name)
			}
			l.errorAt(b.labels[0].rng, "Variable without a value", fmt.Sprintf("Variable %q has no default. %s", name, how))
		}
		return broken
	}

	v, at, ok := l.givenValue(g, ty, typed)
	if !ok {
		return broken
	}
	v, ok = l.convertVariable(v, ty, defaults, at, "value")
	if !ok {
		return broken
	}
	return v
}

// givenValue reads a value from outside. Text for a string, or for a variable
// that says nothing of its type, is taken as it is; other text is an
// expression, as in Terraform.
func (l *loader) givenValue(g given, ty cty.Type, typed bool) (value, hcl.Range, bool) {
	expr := g.expr
	at := hcl.Range{}
	if g.text != nil {
		text := g.text.text[g.start:]
		at = g.text.rangeOf(g.start, len(g.text.text))
		if ty == cty.String || ty == cty.DynamicPseudoType && !typed || ty.IsPrimitiveType() {
			return cty.StringVal(string(text)), at, true
		}
		d := g.text.tooDeep()
		if d == nil {
			d = g.text.tooLong(g.text.text)
		}
		if d != nil {
			l.diags = append(l.diags, d)
			return cty.NilVal, at, false
		}
		var diags hcl.Diagnostics
		expr, diags = hclsyntax.ParseExpression(text, g.text.name, g.text.posOf(g.start))
		if diags.HasErrors() {
			l.errorAt(at, "Invalid value for a variable", fmt.Sprintf(
				"The value cannot be read: %s. A list is written [\"a\", \"b\"], with the quotes; in a shell, put single quotes around the whole.",
				strings.TrimSuffix(diags[0].Summary, ".")))
			return cty.NilVal, at, false
		}
	}
	v, diags := expr.Value(nil)
	if diags.HasErrors() && g.text != nil {
		l.errorAt(at, "Invalid value for a variable",
			"A value is a constant, and text inside it stands in quotes: [\"a\", \"b\"]. In a shell, put single quotes around the whole.")
		return cty.NilVal, at, false
	}
	l.diags = append(l.diags, diags...)
	return v, expr.Range(), !diags.HasErrors()
}

// convertVariable converts a value to the type of its variable.
func (l *loader) convertVariable(v value, ty cty.Type, defaults *typeexpr.Defaults, at hcl.Range, what string) (value, bool) {
	if defaults != nil && !v.IsNull() {
		v = defaults.Apply(v)
	}
	if ty.IsListType() || ty.IsSetType() {
		v = uniform(v)
	}
	out, err := convert.Convert(v, ty)
	if err != nil {
		l.errorAt(at, "Invalid value for a variable", fmt.Sprintf("The %s does not fit the type %s: %s.", what, typeexpr.TypeString(ty), pathMessage(err)))
		return cty.NilVal, false
	}
	return out, true
}

// uniform returns a tuple whose elements are all of one type as a list. cty
// would find out the same, in quadratic time.
func uniform(v value) value {
	if v.IsNull() || !v.IsKnown() || !v.Type().IsTupleType() {
		return v
	}
	types := v.Type().TupleElementTypes()
	if len(types) == 0 || types[0].HasDynamicTypes() {
		return v
	}
	for _, ty := range types {
		if !ty.Equals(types[0]) {
			return v
		}
	}
	return cty.ListVal(v.AsValueSlice())
}

// pathMessage is the message of an error in a value, with the place in the
// value that it is about.
func pathMessage(err error) string {
	pe, ok := err.(cty.PathError)
	if !ok || len(pe.Path) == 0 {
		return err.Error()
	}
	var b strings.Builder
	for _, step := range pe.Path {
		switch s := step.(type) {
		case cty.GetAttrStep:
			b.WriteString("." + s.Name)
		case cty.IndexStep:
			if s.Key.Type() == cty.Number {
				fmt.Fprintf(&b, "[%s]", s.Key.AsBigFloat().Text('f', 0))
			} else if s.Key.Type() == cty.String {
				fmt.Fprintf(&b, "[%q]", s.Key.AsString())
			}
		}
	}
	return b.String() + ": " + err.Error()
}
