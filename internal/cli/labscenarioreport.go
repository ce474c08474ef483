package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sgc/internal/scenario"
	"sgc/internal/scenario/report"
)

// checkReport says what is wrong with the name of a picture.
func checkReport(name string, files []string) error {
	if name == "" {
		return errors.New("the value of --report is empty; leave the flag out, or name a file")
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".html", ".htm":
		return nil
	case ".svg":
		if len(files) > 1 {
			return fmt.Errorf("an SVG picture is of one scenario, and %d were named, the second being %s. Name one, or write a page: --report %s.html", len(files), files[1], strings.TrimSuffix(name, filepath.Ext(name)))
		}
		return nil
	}
	return fmt.Errorf("--report makes a page if its file ends in .html, and a picture if it ends in .svg; %s ends in neither", name)
}

// reportFile is where a picture goes, which is opened before anything is
// played: one that cannot be written is known then.
type reportFile struct {
	f *os.File
	// made says that there was none before.
	made bool
}

// createReport opens the file, and leaves what is in it; nil for no file.
func createReport(name string) (*reportFile, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(name, os.O_WRONLY, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("write the picture: %w", err)
	}
	return &reportFile{f, made}, nil
}

// drop leaves things as they were. It may be called of nil.
func (r *reportFile) drop() error {
	if r == nil {
		return nil
	}
	err := r.f.Close()
	if r.made {
		err = errors.Join(err, os.Remove(r.f.Name()))
	}
	return err
}

// write draws the runs. It may be called of nil.
func (r *reportFile) write(results []*scenario.Result) error {
	if r == nil {
		return nil
	}
	var pictures []report.Picture
	for _, result := range results {
		pictures = append(pictures, report.Picture{Name: scenarioName(result.Scenario.File), Result: result})
	}
	text := report.HTML
	if strings.EqualFold(filepath.Ext(r.f.Name()), ".svg") {
		text = func(p []report.Picture) []byte { return report.SVG(p[0]) }
	}
	info, err := r.f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = r.f.Truncate(0)
	}
	if err == nil {
		_, err = r.f.Write(text(pictures))
	}
	if err = errors.Join(err, r.f.Close()); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}
