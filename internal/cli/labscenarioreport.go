package cli

import (
	"errors"
	"fmt"
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

// drawReport draws the runs, as the name of the file asks for.
func drawReport(name string, results []*scenario.Result) []byte {
	var pictures []report.Picture
	for _, result := range results {
		pictures = append(pictures, report.Picture{Name: scenarioName(result.Scenario.File), Result: result})
	}
	if strings.EqualFold(filepath.Ext(name), ".svg") {
		return report.SVG(pictures[0])
	}
	return report.HTML(pictures)
}
