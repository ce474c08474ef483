package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"sgc/internal/flow"
	"sgc/internal/regular"
	"sgc/policies"
)

// Find returns the scenarios at path, in lexical order: path itself if it is one,
// else those in the directory and in the directories below it. Names that begin
// with a dot are passed over, and symbolic links to directories are not followed.
// Of a directory with scenarios, all has to be readable that is not passed over;
// one without, such as a policy's, may hold what is somebody else's.
func Find(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if strings.HasSuffix(path, Extension) {
			return []string{path}, nil
		}
		return nil, nil
	}
	f := &finder{root: path}
	if err := filepath.WalkDir(path, f.visit); err != nil {
		return nil, err
	}
	return f.found()
}

// finder walks through a directory.
type finder struct {
	root  string
	files []string
	// closed is the error of the first directory that this user may not read.
	closed error
}

func (f *finder) visit(at string, e fs.DirEntry, err error) error {
	switch {
	case at != f.root && strings.HasPrefix(filepath.Base(at), "."):
		if e.IsDir() {
			return fs.SkipDir
		}
	case err != nil && at != f.root && errors.Is(err, fs.ErrPermission):
		if f.closed == nil {
			f.closed = err
		}
		return fs.SkipDir
	case err != nil:
		return err
	case !e.IsDir() && strings.HasSuffix(e.Name(), Extension):
		f.files = append(f.files, at)
	}
	return nil
}

func (f *finder) found() ([]string, error) {
	if len(f.files) > 0 && f.closed != nil {
		return nil, f.closed
	}
	return f.files, nil
}

// LooksLike reports whether a file holds what scenarios have and policies have
// not: hosts with names, policies in blocks, or steps. It is false of a file that
// cannot be read.
func LooksLike(file string) bool {
	text, err := regular.ReadFile(file, maxSource)
	if err != nil || policies.TooDeep(file, text) != nil {
		return false
	}
	// Of a text with faults, too, what stands before them is known.
	parsed, _ := hclsyntax.ParseConfig(text, file, hcl.InitialPos)
	if parsed == nil {
		return false
	}
	body, ok := parsed.Body.(*hclsyntax.Body)
	return ok && slices.ContainsFunc(body.Blocks, func(b *hclsyntax.Block) bool {
		return len(b.Labels) == 1 && slices.Contains([]string{"host", "policy", "step"}, b.Type)
	})
}

// Loaded is the outcome of a load.
type Loaded struct {
	// Scenario is nil if there are errors among the diagnostics.
	Scenario *Scenario
	// Report holds the diagnostics, sorted by place, and the texts that they
	// point into, for policies.WriteDiagnostics.
	Report *policies.Loaded
}

// maxSource is the size up to which a scenario is read.
const maxSource = 16 << 20

// Load reads the scenario in a file.
func Load(file string) *Loaded {
	text, err := regular.ReadFile(file, maxSource)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return &Loaded{Report: &policies.Loaded{Diagnostics: hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "Cannot read a scenario", Detail: fmt.Sprintf("%s: %s.", file, err),
		}}}}
	}
	return LoadText(file, text)
}

// LoadText reads a scenario from a text; file is its name, and the place from
// which the files that it names are looked for.
func LoadText(file string, text []byte) *Loaded {
	l := &loader{file: file, text: text}
	out := &Loaded{Report: &policies.Loaded{Files: map[string]*hcl.File{file: {Bytes: text}}}}
	if d := policies.TooDeep(file, text); d != nil {
		out.Report.Add(d)
		return out
	}
	parsed, diags := hclsyntax.ParseConfig(text, file, hcl.InitialPos)
	if diags.HasErrors() {
		// Later ones follow from the first.
		out.Report.Add(diags[0])
		return out
	}
	out.Report.Files[file] = parsed
	s := l.scenario(parsed.Body.(*hclsyntax.Body), out.Report.Files)
	out.Report.Add(l.diags...)
	if !out.Report.Diagnostics.HasErrors() {
		out.Scenario = s
		s.Texts = out.Report.Files
	}
	return out
}

// scenario reads the file: hosts first, since all else names them.
func (l *loader) scenario(body *hclsyntax.Body, files map[string]*hcl.File) *Scenario {
	s := &Scenario{File: l.file, Speed: 1}
	r := &reader{l: l, body: body, meant: map[string]bool{}, header: hcl.Range{Filename: l.file, Start: hcl.InitialPos, End: hcl.InitialPos}}
	r.check(shapes[""])
	l.ctx = &hcl.EvalContext{Functions: policies.Functions(filepath.Dir(l.file)), Variables: map[string]cty.Value{}}
	l.locals(r.blocks("locals"))
	s.Title, _ = r.string("title")
	if n, ok := r.number("speed", 1, MaxSpeed); ok {
		s.Speed = n
	}
	for _, b := range r.blocks("network") {
		l.network(s, b)
	}
	for _, b := range r.blocks("host") {
		l.host(s, b)
	}
	l.checkHosts(s, r.header)
	l.nameHosts(s)
	for _, b := range r.blocks("policy") {
		l.policy(s, b, files)
	}
	t := &steps{loader: l, s: s, flows: map[string]*Flow{}, running: map[string]bool{}}
	if !l.diags.HasErrors() {
		t.topology = NewTopology(s)
	}
	for _, b := range r.blocks("step") {
		t.step(b)
	}
	if len(s.Steps) == 0 && !l.diags.HasErrors() {
		l.errorAt(r.header, "No steps", "A scenario does nothing without steps: step \"…\" { … }.")
	}
	return s
}

// locals reads the locals blocks. A value may refer to any other.
func (l *loader) locals(blocks []*hclsyntax.Block) {
	pending := map[string]*hclsyntax.Attribute{}
	for _, b := range blocks {
		l.open(b)
		for _, a := range sortedAttributes(b.Body) {
			if first := pending[a.Name]; first != nil {
				l.errorAt(a.NameRange, "Second value", "The local value %q has one already, at line %d.", a.Name, first.NameRange.Start.Line)
				continue
			}
			pending[a.Name] = a
		}
	}
	values := map[string]cty.Value{}
	for len(pending) > 0 {
		progress := false
		for _, name := range slices.Sorted(maps.Keys(pending)) {
			a := pending[name]
			if slices.ContainsFunc(a.Expr.Variables(), func(t hcl.Traversal) bool {
				step, ok := second(t)
				return t.RootName() == "local" && ok && pending[step] != nil
			}) {
				continue
			}
			delete(pending, name)
			progress = true
			l.ctx.Variables["local"] = cty.ObjectVal(values)
			if v, ok := l.eval(a.Expr); ok {
				values[name] = v
			}
		}
		if !progress {
			for _, name := range slices.Sorted(maps.Keys(pending)) {
				l.errorAt(pending[name].NameRange, "Circular value", "The local value %q depends on itself.", name)
			}
			break
		}
	}
	l.ctx.Variables["local"] = cty.ObjectVal(values)
}

// second returns the name behind the root of a reference.
func second(t hcl.Traversal) (string, bool) {
	if len(t) < 2 {
		return "", false
	}
	a, ok := t[1].(hcl.TraverseAttr)
	return a.Name, ok
}

// nameHosts lets expressions say host.client.ipv4.
func (l *loader) nameHosts(s *Scenario) {
	hosts := map[string]cty.Value{}
	for _, h := range s.Hosts {
		values := map[string]cty.Value{}
		for _, f := range flow.Families {
			if a, ok := h.Address(f); ok {
				values[strings.ToLower(f.String())] = cty.StringVal(a.String())
			}
		}
		hosts[h.Name] = cty.ObjectVal(values)
	}
	l.ctx.Variables["host"] = cty.ObjectVal(hosts)
}

// policy reads a policy block: the policy itself, or file = and variables =.
func (l *loader) policy(s *Scenario, b *hclsyntax.Block, files map[string]*hcl.File) {
	r := l.open(b)
	if p := s.policy(r.label); p != nil {
		l.errorAt(r.labelAt, "Second policy of this name", "There is a policy %q already; give this one another name.", r.label)
		return
	}
	p := &Policy{Name: r.label, Path: l.file}
	if r.has("file") {
		l.policyFile(r, p)
	} else {
		p.Loaded = policies.LoadText(l.file, l.only(b.Body), filepath.Dir(l.file), policies.Inputs{})
	}
	if p.Loaded == nil {
		return
	}
	for name, file := range p.Loaded.Files {
		if name == l.file {
			// The text that the policy was read from has blanks around it.
			file.Bytes = l.text
		}
		if files[name] == nil {
			files[name] = file
		}
	}
	for _, d := range p.Loaded.Diagnostics {
		if d.Severity == hcl.DiagError {
			if d.Subject == nil {
				at := r.place("file")
				d.Subject = &at
			}
			l.diags = append(l.diags, d)
		}
	}
	if p.Loaded.Policy != nil {
		l.managesInterfaces(s, r, p)
	}
	s.Policies = append(s.Policies, p)
}

// only returns the scenario's text with blanks for all but the inside of a
// block, so that lines and columns stay true.
func (l *loader) only(b *hclsyntax.Body) []byte {
	from, to := b.SrcRange.Start.Byte, b.SrcRange.End.Byte
	out := make([]byte, len(l.text))
	for i, c := range l.text {
		switch {
		case i > from && i < to-1, c == '\n':
			out[i] = c
		default:
			out[i] = ' '
		}
	}
	return out
}

func (l *loader) policyFile(r *reader, p *Policy) {
	for _, a := range sortedAttributes(r.body) {
		if a.Name != "file" && a.Name != "variables" {
			l.errorAt(a.NameRange, "Unknown attribute", "A policy that is a file has a file and variables, no %q.%s", a.Name, policies.Suggest(a.Name, []string{"file", "variables"}))
		}
	}
	for _, b := range r.body.Blocks {
		l.errorAt(b.DefRange(), "Two policies", "A policy either stands here or is a file; remove this block, or the file.")
	}
	name, ok := r.string("file")
	if !ok {
		return
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(l.file), name)
	}
	in := policies.Inputs{HowToSet: func(variable string) string {
		return fmt.Sprintf("Set it in the scenario's policy block: variables = { %s = … }.", variable)
	}}
	if v, ok := r.value("variables"); ok {
		if !v.Type().IsObjectType() && !v.Type().IsMapType() {
			r.wrong("variables", "a map: { name = value }", v)
			return
		}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			c := policies.Constant{Name: k.AsString(), Value: e, From: "the attribute variables"}
			c.NameAt, c.At = l.element(r.body.Attributes["variables"].Expr, c.Name)
			in.Constants = append(in.Constants, c)
		}
	}
	p.Path, p.Loaded = name, policies.Load(name, in)
}

// element returns where the name and the value of an element of a map stand, or
// the whole map for both, where it is not written out.
func (l *loader) element(e hclsyntax.Expression, name string) (nameAt, valueAt hcl.Range) {
	if pairs, diags := hcl.ExprMap(e); !diags.HasErrors() {
		for _, pair := range pairs {
			if k, diags := pair.Key.Value(l.ctx); !diags.HasErrors() && k.Type() == cty.String && k.IsKnown() && !k.IsNull() && k.AsString() == name {
				return pair.Key.Range(), pair.Value.Range()
			}
		}
	}
	return e.Range(), e.Range()
}

// interfaceBlock returns where an interface of a policy is named: in the scenario
// itself, or where that names the file.
func (l *loader) interfaceBlock(b *hclsyntax.Body, i *policies.Interface) hcl.Range {
	for _, block := range b.Blocks {
		if block.Type == "interface" && len(block.Labels) == 1 && block.Labels[0] == i.Name {
			return block.LabelRanges[0]
		}
	}
	if a := b.Attributes["file"]; a != nil {
		return a.Expr.Range()
	}
	return b.MissingItemRange()
}

// managesInterfaces reports a policy that means no interface of the managed
// host: a slip of the pen that would let everything pass.
func (l *loader) managesInterfaces(s *Scenario, r *reader, p *Policy) {
	h := s.Managed()
	if h == nil || len(p.Loaded.Policy.Interfaces) == 0 {
		return
	}
	var names, bare []string
	for _, i := range h.Interfaces {
		if p.Loaded.Policy.Interface(i.Name) != nil {
			return
		}
		names, bare = append(names, fmt.Sprintf("%q", i.Name)), append(bare, i.Name)
	}
	if len(names) > 0 {
		first := p.Loaded.Policy.Interfaces[0]
		l.errorAt(l.interfaceBlock(r.body, first), "Policy without effect", "The policy names no interface of the managed host %q, which has %s.%s", h.Name, strings.Join(names, ", "), policies.Suggest(first.Name, bare))
	}
}
