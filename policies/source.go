package policies

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"sgc/internal/regular"
)

// Files returns the policy files that Load would read at path, in the order in
// which it reads them: path itself if it is a file, else the files of the
// directory, in lexical order; their names end in .hcl or .hcl.json. Names that
// begin with a dot, the lab's scenarios (ScenarioExtension), and directories
// inside the directory are passed over; a symbolic link that leads nowhere is
// not, since somebody misses what it stands for. It is an error if there is no
// such file.
func Files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		switch {
		case isScenarioName(path):
			return nil, &fs.PathError{Op: "read policy", Path: path, Err: errScenario}
		case !isPolicyName(path):
			return nil, &fs.PathError{Op: "read policy", Path: path, Err: errNotPolicy}
		}
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !isPolicyName(name) || isScenarioName(name) {
			continue
		}
		file := filepath.Join(path, name)
		// A symbolic link counts as what it leads to.
		if info, err := os.Stat(file); err != nil || !info.IsDir() {
			files = append(files, file)
		}
	}
	if len(files) == 0 {
		return nil, &fs.PathError{Op: "read policy", Path: path, Err: errNoFiles}
	}
	return files, nil
}

func isPolicyName(name string) bool {
	return strings.HasSuffix(name, ".hcl") || strings.HasSuffix(name, ".hcl.json")
}

// errNotPolicy keeps a file that was cut off, such as a saved plan of no bytes,
// from being taken for a policy that allows nothing.
var errNotPolicy = errors.New("it is no policy file, whose name ends in .hcl or .hcl.json, nor a saved plan that apply could carry out")

var errScenario = errors.New("it is a scenario of the lab, which sgc lab run plays")

var errNoFiles = errors.New("no file here ends in .hcl or .hcl.json")

// maxSource is the size up to which a policy file is read. Spans count in 32
// bits, and nobody writes such a file by hand.
const maxSource = 1 << 30

// source is one text that diagnostics can point into: a policy file, a file of
// variables or of prefixes, or a value from the command line.
type source struct {
	name string
	text []byte
	// lines are the offsets of the lines, set on first use.
	lines []int
	// blanked sources were parsed with blanks for some lists, so that lines
	// and columns that come from the parser are wrong, but not byte offsets.
	blanked bool
	nav     any
}

// isJSON reports whether the file is in JSON syntax.
func (s *source) isJSON() bool { return strings.HasSuffix(s.name, ".json") }

// rangeOf returns the range between two byte offsets.
func (s *source) rangeOf(start, end int) hcl.Range {
	return hcl.Range{Filename: s.name, Start: s.posOf(start), End: s.posOf(end)}
}

func (s *source) posOf(offset int) hcl.Pos {
	if s.lines == nil {
		s.lines = []int{0}
		for i, c := range s.text {
			if c == '\n' {
				s.lines = append(s.lines, i+1)
			}
		}
	}
	line := sort.SearchInts(s.lines, offset+1) - 1
	return hcl.Pos{
		Line:   line + 1,
		Column: utf8.RuneCount(s.text[s.lines[line]:offset]) + 1,
		Byte:   offset,
	}
}

// fix returns the range with its true lines and columns.
func (s *source) fix(r hcl.Range) hcl.Range {
	if !s.blanked {
		return r
	}
	return s.rangeOf(min(r.Start.Byte, len(s.text)), min(r.End.Byte, len(s.text)))
}

// parse reads a file of either syntax. The schema tells blocks from attributes
// in JSON; nothing is checked against it.
func (s *source) parse(schema *schema) (*body, hcl.Diagnostics) {
	if d := s.tooDeep(); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	lists := findBulk(s)
	if d := s.tooLong(lists.blank()); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	for {
		s.blanked = len(lists.lists) > 0
		if s.isJSON() {
			b, diags := parseJSON(lists.blank(), s.name, lists, schema)
			if b == nil || !lists.forget() {
				return b, diags
			}
			continue
		}
		file, diags := hclsyntax.ParseConfig(lists.blank(), s.name, hcl.InitialPos)
		if diags.HasErrors() {
			return nil, firstFaults(diags)
		}
		root, ok := file.Body.(*hclsyntax.Body)
		if !ok {
			panic("hclsyntax returned a body that is not its own")
		}
		s.nav = file.Nav
		b := nativeBody(root, lists)
		if !lists.forget() {
			return b, diags
		}
	}
}

// firstFaults drops syntax errors that follow from others: all but the first of
// a line, and what comes after a string that does not end.
func firstFaults(diags hcl.Diagnostics) hcl.Diagnostics {
	var out hcl.Diagnostics
	line := 0
	for _, d := range diags {
		if d.Subject == nil || d.Subject.Start.Line == line {
			continue
		}
		line = d.Subject.Start.Line
		out = append(out, d)
		if d.Summary == "Invalid multi-line string" || d.Summary == "Unterminated template string" {
			break
		}
	}
	if len(out) == 0 {
		return diags
	}
	return out
}

// readSource reads a file and keeps it for excerpts.
func (l *loader) readSource(path string) (*source, error) {
	text, err := regular.ReadFile(path, maxSource)
	if err != nil {
		return nil, err
	}
	return l.addSource(path, text), nil
}

func (l *loader) addSource(name string, text []byte) *source {
	s := &source{name: name, text: text}
	l.sources[name] = s
	return s
}

// reason returns what went wrong with a file, without the operation and path
// that the caller's sentence has already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
