package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/urfave/cli/v2"

	"sgc/internal/lab"
	"sgc/internal/scenario"
	"sgc/policies"
)

// scenarioOptions are those of lab run for scenarios.
type scenarioOptions struct {
	// Paths are the arguments, Files the scenarios that they name.
	Paths, Files []string
	// Speed is 0 where each scenario has its own.
	Speed int
	// Parallel is how many are played at once.
	Parallel int
	// JUnit is the file for a report in XML, "" for none.
	JUnit string
	// Report is the file for a picture, "" for none.
	Report string
}

func scenarioFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "speed", Usage: "play scenarios `N` times faster: their waits, intervals and timeouts are divided"},
		&cli.StringFlag{Name: "parallel", Usage: "play `N` scenarios at once (default: two for each processor)"},
		&cli.StringFlag{Name: "junit", Usage: "also write what the scenarios found to `FILE`, as JUnit XML"},
		&cli.StringFlag{Name: "report", Usage: "also draw what happened into `FILE`: a page (.html), or the picture of one scenario (.svg)"},
	}
}

// policyFlags are those that mean nothing for scenarios.
var policyFlags = []string{"all", "table", "var", "var-file"}

// scenarioOptions reads the command line. There are no files where the
// arguments name a policy; then the flags of scenarios are refused.
func (s *session) scenarioOptions(c *cli.Context, arguments []string) (scenarioOptions, error) {
	o := scenarioOptions{Paths: arguments, JUnit: c.String("junit"), Report: c.String("report")}
	if c.IsSet("junit") {
		if err := checkJUnitName(o.JUnit); err != nil {
			return o, err
		}
	}
	forPolicies := slices.ContainsFunc(policyFlags, c.IsSet)
	without := ""
	seen := map[string]bool{}
	for _, path := range arguments {
		if path == "" {
			return o, errors.New("the path is empty")
		}
		if forPolicies && !strings.HasSuffix(path, scenario.Extension) {
			continue // scenarios that lie beside the policy are not meant
		}
		files, err := scenario.Find(path)
		if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, scenario.Extension) {
			// Whoever loads a policy says that there is none.
			err = nil
		}
		if err != nil {
			return o, fmt.Errorf("look for scenarios in %s: %w", path, cause(err))
		}
		if len(files) == 0 {
			without = path
		}
		for _, file := range files {
			if clean := filepath.Clean(file); !seen[clean] {
				seen[clean] = true
				o.Files = append(o.Files, file)
			}
		}
	}
	if len(o.Files) == 0 || without != "" {
		if err := checkNames(arguments); err != nil {
			return o, err
		}
	}
	if len(o.Files) == 0 {
		for _, name := range []string{"speed", "parallel", "junit", "report"} {
			if c.IsSet(name) {
				return o, fmt.Errorf("--%s is for scenarios (files whose names end in %s), and none was named", name, scenario.Extension)
			}
		}
		return o, nil
	}
	if without != "" {
		return o, fmt.Errorf("there is no scenario in %s: the names of scenarios end in %s. A policy is tried by itself: sgc lab run %s", without, scenario.Extension, without)
	}
	for _, name := range policyFlags {
		if c.IsSet(name) {
			return o, fmt.Errorf("--%s is for trying a policy, and %s is a scenario; leave it out", name, o.Files[0])
		}
	}
	if c.IsSet("speed") {
		var err error
		if o.Speed, err = strconv.Atoi(c.String("speed")); err != nil || o.Speed < 1 || o.Speed > scenario.MaxSpeed {
			return o, fmt.Errorf("--speed is a whole number from 1 to %d, not %s", scenario.MaxSpeed, c.String("speed"))
		}
	}
	if c.IsSet("parallel") {
		var err error
		if o.Parallel, err = strconv.Atoi(c.String("parallel")); err != nil || o.Parallel < 1 {
			return o, fmt.Errorf("--parallel is the number of scenarios to play at once, a whole number from 1, not %s", c.String("parallel"))
		}
	}
	if c.IsSet("report") {
		if err := checkReport(o.Report, o.Files); err != nil {
			return o, err
		}
	}
	if o.Parallel == 0 {
		// Scenarios wait most of the time.
		o.Parallel = 2 * runtime.NumCPU()
	}
	return o, nil
}

// checkNames reports a scenario among the paths, or among the policy files of a
// directory, whose name does not say so: it would be read as a policy.
func checkNames(paths []string) error {
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			// Whoever loads the policy says what is wrong with the directory.
			files, _ = policies.Files(path)
			if entries, err := os.ReadDir(path); err == nil && len(files) == 0 && !slices.ContainsFunc(entries, isPolicyFile) {
				return fmt.Errorf("there is nothing to run in %s: neither a policy (*.hcl, *.hcl.json) nor, in it or below it, a scenario (*%s)", path, scenario.Extension)
			}
		}
		for _, file := range files {
			if !strings.HasSuffix(file, scenario.Extension) && scenario.LooksLike(file) {
				stem := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".hcl"), ".lab")
				return fmt.Errorf("%s looks like a scenario, but its name does not say so: the file of a scenario is named %s%s", file, stem, scenario.Extension)
			}
		}
	}
	return nil
}

// isPolicyFile reports whether a name is one of policies.
func isPolicyFile(e fs.DirEntry) bool {
	return strings.HasSuffix(e.Name(), ".hcl") || strings.HasSuffix(e.Name(), ".hcl.json")
}

// arguments returns the command line for a second run in a user namespace.
func (o scenarioOptions) arguments(g globals) []string {
	args := []string{"lab"}
	if o.Speed > 0 {
		args = append(args, fmt.Sprintf("--speed=%d", o.Speed))
	}
	if o.JUnit != "" {
		args = append(args, "--junit="+o.JUnit)
	}
	if o.Report != "" {
		args = append(args, "--report="+o.Report)
	}
	args = append(args, fmt.Sprintf("--parallel=%d", o.Parallel), fmt.Sprintf("--json=%t", g.JSON), fmt.Sprintf("--no-color=%t", g.NoColor))
	return append(append(args, "--", "run"), o.Paths...)
}

// labScenarios plays scenarios, in a user namespace if that is needed.
func (s *session) labScenarios(ctx context.Context, o scenarioOptions) error {
	loads, err := s.loadScenarios(o.Files, o.Speed)
	if err != nil {
		return s.notBegun(ctx, o, junitOfLoad(o.Files, loads), err)
	}
	if !lab.MayMakeNamespaces() {
		err := s.runAgain(ctx, o.arguments(s.globals))
		if err != nil && !errors.Is(err, errReported) && !errors.Is(err, errDifferent) {
			err = s.notBegun(ctx, o, junitOfError(o.Files, err), err)
		}
		return err
	}
	junit, err := openResult(junitReport, o.JUnit)
	if err != nil {
		return err
	}
	picture, err := openResult("the picture", o.Report)
	if err != nil {
		return s.notBegun(ctx, o, junitOfError(o.Files, err), errors.Join(err, junit.drop()))
	}
	results, err := s.playScenarios(ctx, loads, o)
	if err != nil {
		err = errors.Join(err, junit.drop(), picture.drop())
		switch {
		case results == nil:
			return s.notBegun(ctx, o, junitOfError(o.Files, err), err)
		case s.JSON && errors.Is(err, context.Canceled):
			err = errors.Join(err, s.writeJSON(scenariosView(results)))
		}
		return err
	}
	if err := s.keepResults(o, results, junit, picture); err != nil {
		return err
	}
	failed := false
	for _, r := range results {
		if r.Err != nil {
			return errReported
		}
		failed = failed || r.Failed()
	}
	if failed {
		return errDifferent
	}
	return nil
}

// keepResults writes what the run found, to files and to standard output: to each
// of them, also where another one cannot be written.
func (s *session) keepResults(o scenarioOptions, results []*scenario.Result, junit, picture *resultFile) error {
	var errs []error
	if junit != nil {
		text, err := junitOf(results).text()
		if err == nil {
			err = junit.write(text)
		}
		errs = append(errs, err)
	}
	if picture != nil {
		errs = append(errs, picture.write(drawReport(o.Report, results)))
	}
	if s.JSON {
		errs = append(errs, s.writeJSON(scenariosView(results)))
	} else {
		errs = append(errs, s.showScenarioSummary(results))
	}
	return errors.Join(errs...)
}

// loadScenarios loads all files, and reports what is wrong with any, also at their
// speed: 0 for each one's own.
func (s *session) loadScenarios(files []string, speed int) ([]*scenario.Loaded, error) {
	var out []*scenario.Loaded
	all := &policies.Loaded{Files: map[string]*hcl.File{}}
	for _, file := range files {
		l := scenario.Load(file)
		if l.Scenario != nil {
			for _, p := range l.Scenario.Policies {
				if p.Loaded.Policy != nil {
					l.Report.Add(policies.NotEnforced(p.Loaded.Policy)...)
				}
			}
			l.Report.Add(l.Scenario.CheckSpeed(cmp.Or(speed, l.Scenario.Speed))...)
		}
		all.Diagnostics = append(all.Diagnostics, l.Report.Diagnostics...)
		for name, f := range l.Report.Files {
			all.Files[name] = f
		}
		out = append(out, l)
	}
	return out, s.report(all)
}

// warnOfSpeed says of each scenario in a line if its speed, which is 0 for its own,
// leaves idle timeouts longer than it should.
func (s *session) warnOfSpeed(loads []*scenario.Loaded, speed int) {
	for _, l := range loads {
		if text := l.Scenario.SpeedWarning(cmp.Or(speed, l.Scenario.Speed)); text != "" {
			s.inform("%s: %s: %s", s.errPaint().yellow("Warning"), clean(l.Scenario.File), text)
		}
	}
}

// playScenarios plays them, so many at once, and shows each when it has ended.
// There are results, in the order of the loads, if anything was played, be it that
// not all of it was: those of an interrupted scenario have context.Canceled for
// error.
func (s *session) playScenarios(ctx context.Context, loads []*scenario.Loaded, o scenarioOptions) (_ []*scenario.Result, err error) {
	dir, err := newLabDir()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.remove()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	places := make(chan struct{}, o.Parallel)
	s.warnOfSpeed(loads, o.Speed)
	results := make([]*scenario.Result, len(loads))
	ended := make(chan int, len(loads))
	live := s.newLabLive()
	defer live.close()
	go func() {
		for i, l := range loads {
			places <- struct{}{}
			go func() {
				defer func() { <-places }()
				results[i] = dir.play(ctx, i, l.Scenario, o.Speed, live)
				ended <- i
			}()
		}
	}()
	for range loads {
		r := results[<-ended]
		if !s.JSON && ctx.Err() == nil && err == nil {
			err = live.between(func() error { return s.showScenario(r) })
		}
		if err != nil {
			// Nobody sees the rest; but all have to end.
			cancel()
		}
	}
	return results, errors.Join(err, ctx.Err())
}

// play plays one scenario with a state directory of its own, and shows it.
func (d *labDir) play(ctx context.Context, number int, sc *scenario.Scenario, speed int, live *labLive) *scenario.Result {
	state := filepath.Join(d.path, fmt.Sprint(number))
	err := ctx.Err()
	if err == nil {
		err = os.Mkdir(state, 0o700)
	}
	if err != nil {
		return &scenario.Result{Scenario: sc, Timeline: &scenario.Timeline{
			Scenario: sc.File, Title: sc.Title, Speed: max(speed, 1), Lanes: []scenario.Lane{}, Marks: []scenario.Mark{}, Steps: []scenario.Span{},
		}, Err: err}
	}
	run := scenario.Start(ctx, sc, scenario.Options{Speed: speed, StateDir: state, Enforcer: labEnforcer{}})
	live.begin(number, sc, run)
	defer live.end(number)
	return run.Wait()
}

// scenarioName is what a scenario is called: its directory if the file says
// nothing more, else the file.
func scenarioName(file string) string {
	name := strings.TrimSuffix(filepath.Base(file), scenario.Extension)
	if name == "scenario" {
		return filepath.Base(filepath.Dir(absolute(file)))
	}
	return name
}
