package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// locals are the arguments of all locals blocks. As with variables, a faulty
// one has an unknown value.
type locals struct {
	names  declarations
	exprs  map[string]*attribute
	values map[string]value
	// path is the chain of locals that are being resolved, and at the place of
	// each in it.
	path []string
	at   map[string]int
}

func (l *loader) localNames() []string { return l.locals.names.sorted() }

// resolveLocals finds the value of every local, in whatever order they stand.
func (l *loader) resolveLocals() {
	for _, name := range l.localNames() {
		l.resolveLocal(name)
	}
	l.ctx.Variables["local"] = objectOf(l.locals.values)
}

func (l *loader) resolveLocal(name string) {
	if _, done := l.locals.values[name]; done {
		return
	}
	a := l.locals.exprs[name]
	// What a cycle leads back to is unknown, until the cycle is reported.
	l.locals.values[name] = cty.DynamicVal
	if !l.checkReferences(a.expr, l.ctx) {
		return
	}
	l.locals.at[name] = len(l.locals.path)
	l.locals.path = append(l.locals.path, name)
	defer func() {
		l.locals.path = l.locals.path[:len(l.locals.path)-1]
		delete(l.locals.at, name)
	}()

	needed := map[string]value{}
	for _, t := range a.expr.Variables() {
		if t.RootName() != "local" {
			continue
		}
		other, at, _ := secondStep(t)
		if cycle := l.cycle(other); cycle != "" {
			l.errorAt(at, "Reference cycle", fmt.Sprintf("The value of local.%s depends on itself: %s. Break the chain somewhere.", other, cycle))
			needed[other] = cty.DynamicVal
			continue
		}
		l.resolveLocal(other)
		needed[other] = l.locals.values[other]
	}
	ctx := l.ctx.NewChild()
	ctx.Variables = map[string]value{"local": objectOf(needed)}
	v, diags := l.evaluate(a.expr, ctx)
	if diags.HasErrors() {
		return
	}
	// Locals that hold another twice double at each step.
	if fault := tooBig(v); fault != "" {
		l.errorAt(a.expr.Range(), "Value too large", fault)
		return
	}
	l.locals.values[name] = v
}

// cycle returns the chain that leads from name back to it, or "".
func (l *loader) cycle(name string) string {
	i, found := l.locals.at[name]
	if !found {
		return ""
	}
	return strings.Join(append(slices.Clone(l.locals.path[i:]), name), " → ")
}
