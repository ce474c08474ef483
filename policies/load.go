package policies

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Inputs are the values for variables that come from outside the policy.
// Later ones replace earlier ones, and each of the three replaces those before
// it: Environ, Files, Values, Constants. Each replaces the default of the
// variable.
type Inputs struct {
	// Files are files of name = value lines (--var-file), in order. Names that
	// end in .json are JSON objects.
	Files []string
	// Values are "name=value" (--var), in order.
	Values []string
	// Environ are "SGC_VAR_name=value"; everything else in it is ignored, as
	// are names that no variable has. Pass os.Environ().
	Environ []string
	// Constants are values that stand in another text, where faults of theirs
	// are reported.
	Constants []Constant
	// HowToSet, if not nil, says in a sentence how the variable of that name gets
	// a value, where no command line sets it.
	HowToSet func(name string) string
}

// Constant is a value for a variable that stands in another text.
type Constant struct {
	Name  string
	Value cty.Value
	// NameAt and At are where the name and the value stand, From the place in a
	// sentence.
	NameAt, At hcl.Range
	From       string
}

// Loaded is the outcome of a load.
type Loaded struct {
	// Policy is nil if there are errors among the diagnostics.
	Policy *Policy
	// Diagnostics are all errors and warnings, sorted by place.
	Diagnostics hcl.Diagnostics
	// Files are the texts that diagnostics point into, by name.
	Files map[string]*hcl.File
}

// Load reads the policy at path, a directory or one file (see Files).
func Load(path string, in Inputs) *Loaded {
	l := newLoader(in)
	files, err := Files(path)
	if err != nil {
		l.diags = append(l.diags, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "No policy found",
			Detail:   fmt.Sprintf("There is no policy to read at %s: %s.", path, reason(err)),
		})
		return l.finish(nil)
	}
	l.dir = filepath.Dir(files[0])

	var bodies []*body
	for _, file := range files {
		src, err := l.readSource(file)
		if err != nil {
			l.cannotRead("policy file", file, err)
			l.incomplete = true
			continue
		}
		l.read[file] = true
		b, diags := src.parse(rootSchema)
		l.diags = append(l.diags, diags...)
		if b == nil {
			l.incomplete = true
			continue
		}
		bodies = append(bodies, b)
	}
	return l.finish(l.policy(bodies))
}

// loader holds what a load knows so far. Its methods report faults into diags
// and go on, with what is left to go on with.
type loader struct {
	in Inputs
	// dir is the directory that relative paths in the policy start from.
	dir     string
	sources map[string]*source
	// read are the files that the policy consists of.
	read  map[string]bool
	diags hcl.Diagnostics
	// incomplete is set when a file could not be parsed: then names may be
	// missing because their definitions are.
	incomplete bool
	// unknown are the expressions without a value, because of a fault
	// elsewhere.
	unknown []hcl.Range

	blocks    map[string][]declared // by type
	names     [refKinds]declarations
	variables variables
	locals    locals
	ctx       *hcl.EvalContext
}

func newLoader(in Inputs) *loader {
	return &loader{
		in:        in,
		sources:   map[string]*source{},
		read:      map[string]bool{},
		blocks:    map[string][]declared{},
		variables: variables{blocks: map[string]*block{}, values: map[string]value{}, excused: map[string]bool{}},
		locals:    locals{exprs: map[string]*attribute{}, values: map[string]value{}, at: map[string]int{}},
	}
}

// policy decodes the files, in passes: names, then values, then blocks, then
// what concerns several blocks.
func (l *loader) policy(files []*body) *Policy {
	l.sortTopLevel(files)
	l.resolveVariables()
	l.buildContext()
	l.resolveLocals()

	p := &Policy{}
	for _, b := range l.blocks["prefix_list"] {
		p.Lists = append(p.Lists, l.prefixList(b))
	}
	for _, b := range l.blocks["security_group"] {
		p.Groups = append(p.Groups, l.group(b))
	}
	for _, b := range l.blocks["network_acl"] {
		p.ACLs = append(p.ACLs, l.acl(b))
	}
	p.Interfaces = l.interfaces(l.blocks["interface"])
	p.Host = l.host(l.blocks["host"])
	p.Tests = l.tests(l.blocks["test"])

	slices.SortStableFunc(p.Lists, func(a, b *PrefixList) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(p.Groups, func(a, b *Group) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(p.ACLs, func(a, b *ACL) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(p.Interfaces, func(a, b *Interface) int { return cmp.Compare(a.Name, b.Name) })
	// What a fault left out would make these warnings wrong.
	if !l.diags.HasErrors() {
		l.review(p)
	}
	p.Files = slices.Sorted(maps.Keys(l.read))
	return p
}

// finish sorts the diagnostics and withholds the policy if there are errors.
func (l *loader) finish(p *Policy) *Loaded {
	if len(l.unknown) > 0 && !l.diags.HasErrors() {
		l.errorAt(l.unknown[0], "Value unknown", "The value of this expression cannot be found out.")
	}
	for _, d := range l.diags {
		if d.Subject != nil {
			d.Subject = l.fix(*d.Subject).Ptr()
		}
		if d.Context != nil {
			d.Context = l.fix(*d.Context).Ptr()
		}
	}
	out := &Loaded{Diagnostics: tidy(l.diags), Files: make(map[string]*hcl.File, len(l.sources))}
	for name, src := range l.sources {
		out.Files[name] = &hcl.File{Bytes: src.text, Nav: src.nav}
	}
	if !l.diags.HasErrors() {
		out.Policy = p
	}
	return out
}

// tidy sorts diagnostics by place, those without a place first, and drops
// those that say the same of the same place, as a fault in the content of a
// dynamic block does for every block that it generates.
func tidy(diags hcl.Diagnostics) hcl.Diagnostics {
	at := func(d *hcl.Diagnostic) hcl.Range {
		if d.Subject == nil {
			return hcl.Range{}
		}
		return *d.Subject
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		ra, rb := at(a), at(b)
		return cmp.Or(cmp.Compare(ra.Filename, rb.Filename), cmp.Compare(ra.Start.Byte, rb.Start.Byte),
			cmp.Compare(ra.End.Byte, rb.End.Byte))
	})
	type key struct {
		at              hcl.Range
		severity        hcl.DiagnosticSeverity
		summary, detail string
	}
	seen := make(map[key]bool, len(diags))
	out := diags[:0]
	for _, d := range diags {
		k := key{at(d), d.Severity, d.Summary, d.Detail}
		if !seen[k] {
			seen[k] = true
			out = append(out, d)
		}
	}
	return out
}

// fix returns a range with true lines and columns.
func (l *loader) fix(r hcl.Range) hcl.Range {
	if src := l.sources[r.Filename]; src != nil {
		return src.fix(r)
	}
	return r
}

func (l *loader) pos(r hcl.Range) Pos {
	r = l.fix(r)
	return Pos{File: r.Filename, Line: r.Start.Line, Column: r.Start.Column}
}

func (l *loader) errorAt(at hcl.Range, summary, detail string) {
	l.diags = append(l.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at})
}

func (l *loader) warnAt(at hcl.Range, summary, detail string) {
	l.diags = append(l.diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Detail: detail, Subject: &at})
}

func (l *loader) cannotRead(what, path string, err error) {
	if target, linkErr := os.Readlink(path); linkErr == nil {
		path = fmt.Sprintf("%s, a symbolic link to %s", path, target)
	}
	l.diags = append(l.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Cannot read a " + what,
		Detail:   fmt.Sprintf("%s: %s.", path, reason(err)),
	})
}
