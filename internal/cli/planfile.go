package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sgc/conntrack"
	"sgc/policies"
)

// planFileKind tells a saved plan from other JSON, such as a policy.
const planFileKind = "sgc plan"

// planFile is a saved plan. It holds no table: an apply makes the plan again
// and carries it out only if it is the same one, on the same kernel.
type planFile struct {
	Kind          string `json:"kind"`
	FormatVersion int    `json:"format_version"`
	// Path, VarFiles and Vars are what the policy was loaded from, as absolute
	// paths.
	Path     string   `json:"path"`
	VarFiles []string `json:"var_files,omitempty"`
	Vars     []string `json:"vars,omitempty"`
	// State is the directory of the record, which also stands for the network
	// namespace.
	State string `json:"state"`
	// Digest is the policy's, Generation the kernel's, Delta that of the
	// operations.
	Digest     string `json:"digest"`
	Generation uint32 `json:"generation"`
	Delta      string `json:"delta"`
	// Settings are the changes of the host's conntrack settings.
	Settings string `json:"settings,omitempty"`
	// Flush says which live flows the plan cuts. The flows themselves come and go.
	Flush conntrack.FlushMode `json:"flush"`
}

// savePlan writes the plan down in one step.
func (s *session) savePlan(name string, p *plan) error {
	state, err := s.stateDir()
	if err != nil {
		return err
	}
	f := planFile{
		Kind: planFileKind, FormatVersion: formatVersion,
		Path: absolute(p.path), Vars: s.Vars, State: absolute(state),
		Digest: p.digest, Generation: p.sight.snapshot.Generation, Delta: p.delta.Digest(),
		Settings: p.settings.text(), Flush: p.enforced.Flush,
	}
	for _, v := range s.VarFiles {
		f.VarFiles = append(f.VarFiles, absolute(v))
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	// What stands there may have changed since the command began.
	if err := mayHoldPlan(name); err != nil {
		return err
	}
	if err := writeNew(name, append(text, '\n')); err != nil {
		return fmt.Errorf("save the plan to %s: %w", name, cause(err))
	}
	return nil
}

// mayHoldPlan refuses a path where a saved plan would do harm: one that is
// taken by anything but an older plan, and the name of a policy file.
func mayHoldPlan(name string) error {
	refuse := func(why string) error { return fmt.Errorf("the plan cannot be saved to %s: %s", name, why) }
	if strings.HasSuffix(name, ".hcl") || strings.HasSuffix(name, ".hcl.json") {
		return refuse("a file of that name is a policy; choose another name")
	}
	info, err := os.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refuse(cause(err).Error())
	}
	switch mode := info.Mode(); {
	case mode&os.ModeSymlink != 0:
		return refuse("it is a symbolic link, which would be replaced; name the file itself")
	case mode.IsDir():
		return refuse("it is a directory")
	case !mode.IsRegular():
		return refuse("it is no regular file; name one, and read it with sgc apply")
	}
	is, err := isPlan(name)
	if err != nil {
		return refuse(cause(err).Error())
	}
	if !is {
		return refuse("a file that is no saved plan is there, and would be lost; choose another name, or remove it")
	}
	return nil
}

// writeNew writes a file that is there as a whole or not at all. Variables may
// be secrets: only the owner reads it.
func writeNew(name string, content []byte) error {
	t, err := os.CreateTemp(filepath.Dir(name), ".sgc-plan-*")
	if err != nil {
		return err
	}
	_, err = t.Write(content)
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	return nil
}

// openPlan reads a saved plan. It returns nil, and no error, for a path that
// is anything else, such as a policy.
func openPlan(path string) (*planFile, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // whoever loads the policy says what is wrong
	}
	// An error is for whoever loads the policy as well.
	if is, err := isPlan(path); err != nil || !is {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the plan %s: %w", path, cause(err))
	}
	f := new(planFile)
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("read the plan %s: it is damaged (%w); make a new one with sgc plan --out", path, err)
	}
	if f.FormatVersion != formatVersion {
		return nil, fmt.Errorf("the plan %s is of format %d, and this sgc reads format %d; make a new one with sgc plan --out", path, f.FormatVersion, formatVersion)
	}
	return f, nil
}

// isPlan reports whether a regular file begins as every saved plan does; a
// policy of any size is not read.
func isPlan(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close() // it was only read
	head := make([]byte, 64)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, err
	}
	start := strings.TrimLeft(string(head[:n]), "{ \t\r\n")
	return strings.HasPrefix(start, `"kind": "`+planFileKind+`"`), nil
}

// inputs returns the values of variables that the plan was made with; the
// environment's are read again, and a difference shows in the digest.
func (f *planFile) inputs(environ []string) policies.Inputs {
	return policies.Inputs{Files: f.VarFiles, Values: f.Vars, Environ: environ}
}

// refuse returns why a saved plan must not be carried out any more, or nil: the
// plan that was made again just now has to be the same.
func (f *planFile) refuse(name string, now *plan) error {
	flush := ""
	if f.Flush != conntrack.FlushCloud {
		flush = fmt.Sprintf(" --%s %s", flushName, f.Flush)
	}
	again := fmt.Sprintf("; nothing was changed. Look at a new plan: sgc plan %s%s --out %s", shellWord(f.Path), flush, shellWord(name))
	switch {
	case now.digest != f.Digest:
		return errors.New("the policy is not the one of the saved plan any more" + again)
	case now.sight.snapshot.Generation != f.Generation:
		return errors.New("the kernel's nftables were changed since the plan was saved" + again)
	case now.delta.Digest() != f.Delta:
		return errors.New("the plan is not what would happen now" + again)
	case now.settings.text() != f.Settings:
		return errors.New("the host's conntrack settings were changed since the plan was saved" + again)
	}
	return nil
}

// shellWord quotes a word for a shell where that is needed.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r > 127 || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("/._-+=:@%,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
