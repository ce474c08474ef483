package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"sgc/internal/lab"
	"sgc/policies"
)

// Enforcer is sgc, as far as a scenario needs it. Its methods do what the
// commands do, and are called from several goroutines for several places.
type Enforcer interface {
	// Apply makes the policy, which path names, that of the place. The load is
	// the callee's to add diagnostics to. flush is "",
	// "cloud", "revoked" or "none".
	Apply(ctx context.Context, at Place, path string, policy *policies.Loaded, flush string) error
	// Destroy removes what is enforced there.
	Destroy(ctx context.Context, at Place) error
	// Counts returns the packets that the kernel counted for each rule, by
	// policy address. A rule that the kernel does not count is not in it.
	Counts(ctx context.Context, at Place) (map[string]uint64, error)
	// Fill makes conntrack entries of flows to an address of the place that
	// nobody has, until there is room for no more than leave others. It returns
	// a NotHereError where the machine is not fit for that.
	Fill(ctx context.Context, at Place, to netip.Addr, leave int) error
	// Drain takes the entries of Fill away.
	Drain(ctx context.Context, at Place) error
	// Allowance returns how much room there is for entries, and how many packets
	// found none.
	Allowance(ctx context.Context, at Place) (AllowanceCounts, error)
}

// Place is a host as sgc knows it.
type Place struct {
	// Netns is the path of its network namespace, StateDir its record.
	Netns, StateDir string
}

// Options are those of a run.
type Options struct {
	// Speed replaces the scenario's own; 0 does not.
	Speed int
	// StateDir is an empty directory for what sgc keeps.
	StateDir string
	Enforcer Enforcer
}

// Run is a scenario that is played. Its methods may be called from any
// goroutine.
type Run struct {
	scenario *Scenario
	options  Options
	topology *Topology
	world    *world
	witness  *lab.Witness
	place    Place
	speed    int
	began    time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc
	// work are the goroutines of services, judging those of judgements.
	work, judging sync.WaitGroup
	done          chan struct{}
	// gate is held by who sends a packet, and locked, which held says, by a
	// change that holds all flows.
	gate     sync.RWMutex
	held     bool
	services map[serviceKey]interface{ Close() error }
	// fixed is what the scenario names of flows.
	fixed fixed
	// policy is what is enforced, nil for nothing.
	policy *policies.Policy
	// windows are when the steps began and when their last change was done.
	windows map[string]window
	// clock knows how late the machine was.
	clock clock
	// scaled are the managed host's conntrack timeouts, empty at speed 1.
	scaled []lab.Timeout

	mu      sync.Mutex
	players []*player
	marks   []Mark
	steps   []Span
	// results has a place for every step, which stays empty where the context
	// ended before all had passed that should; taken is how many steps were.
	results []StepResult
	taken   int
	skipped string
	err     error
}

// window is where a step's expectations begin to look.
type window struct{ begun, changed time.Duration }

// Start plays a scenario in the background. It needs the rights of
// lab.MayMakeNamespaces. The run ends by itself, or with the context.
func Start(ctx context.Context, s *Scenario, o Options) *Run {
	r := &Run{
		scenario: s, options: o, topology: NewTopology(s), speed: s.Speed, began: time.Now(),
		done: make(chan struct{}), services: map[serviceKey]interface{ Close() error }{}, windows: map[string]window{},
		results: make([]StepResult, len(s.Steps)), fixed: s.fixed(),
	}
	if o.Speed > 0 {
		r.speed = o.Speed
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	go func() {
		defer close(r.done)
		err := r.play()
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
	}()
	return r
}

// Done is closed when the run has ended.
func (r *Run) Done() <-chan struct{} { return r.done }

// Wait returns what the run found, when it has ended.
func (r *Run) Wait() *Result {
	<-r.done
	judged := 0
	for judged < r.taken && r.results[judged].Step != nil {
		judged++
	}
	return &Result{Scenario: r.scenario, Timeline: r.Timeline(), Timeouts: r.timeouts(), Steps: r.results[:judged], Skipped: r.skipped, Err: r.err}
}

// Timeline returns a copy of what is recorded so far.
func (r *Run) Timeline() *Timeline {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &Timeline{
		Scenario: r.scenario.File, Title: r.scenario.Title, Speed: r.speed, Length: r.now(),
		Lanes: []Lane{}, Marks: append([]Mark{}, r.marks...), Steps: append([]Span{}, r.steps...),
	}
	if n := len(t.Steps); n > 0 && n == len(r.scenario.Steps) && t.Steps[n-1].Ended != 0 {
		t.Length = t.Steps[n-1].Ended
	}
	for _, p := range r.players {
		t.Lanes = append(t.Lanes, p.snapshot())
	}
	return t
}

// now is the time since the run began, never 0: that stands for never.
func (r *Run) now() time.Duration { return max(time.Since(r.began), 1) }

// real returns how long a time of the scenario takes.
func (r *Run) real(d time.Duration) time.Duration { return d / time.Duration(r.speed) }

func (r *Run) background(f func()) {
	r.work.Add(1)
	go func() {
		defer r.work.Done()
		f()
	}()
}

// play builds the world, takes the steps, and leaves nothing.
func (r *Run) play() (err error) {
	if r.world, err = build(r.scenario, r.topology); err != nil {
		return err
	}
	defer func() {
		r.tearDown()
		err = errors.Join(err, r.world.close())
	}()
	managed := r.world.hosts[r.scenario.Managed().Name]
	r.place = Place{Netns: managed.Path(), StateDir: filepath.Join(r.options.StateDir, "state")}
	if r.witness, err = managed.OpenWitness(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.witness.Close()) }()
	// Asking for the entries makes the kernel load conntrack, which shows its
	// settings then.
	if _, err := r.witness.Entries(); err != nil {
		return err
	}
	if r.speed > 1 {
		if r.scaled, err = managed.ScaleTimeouts(r.speed); err != nil {
			return err
		}
	}
	// What came before is not part of the picture.
	r.mu.Lock()
	r.began = time.Now()
	r.mu.Unlock()
	r.background(func() { r.clock.watch(r) })
	defer func() {
		r.judging.Wait()
		if err == nil {
			// An end during the last judgements is one before the scenario's.
			err = context.Cause(r.ctx)
		}
	}()
	for i, s := range r.scenario.Steps {
		if err := r.step(i, s); err != nil {
			if r.ctx.Err() != nil {
				return context.Cause(r.ctx)
			}
			if e := new(NotHereError); errors.As(err, &e) {
				r.skipped = e.Reason
				return nil
			}
			return fmt.Errorf("step %q: %w", s.Name, err)
		}
		r.taken = i + 1
	}
	// What is sent now is part of no step.
	r.hold()
	return nil
}

// abort ends the run with an error that came up in the background: the first one
// is the run's.
func (r *Run) abort(err error) { r.cancel(err) }

// tearDown ends all flows and services.
func (r *Run) tearDown() {
	r.cancel(nil)
	r.release()
	r.mu.Lock()
	players := r.players
	r.mu.Unlock()
	for _, p := range players {
		p.stop()
	}
	for _, s := range r.services {
		// What they missed is in the records of the flows.
		_ = s.Close()
	}
	r.work.Wait()
}

// step takes one step, and sets out to hold what it expects against what
// happened.
func (r *Run) step(number int, s *Step) error {
	begun := r.now()
	r.mu.Lock()
	r.steps = append(r.steps, Span{Name: s.Name, Description: s.Description, Begun: begun})
	r.mu.Unlock()
	w := window{begun, begun}
	r.windows[s.Name] = w
	var verdicts []Verdict
	for i, a := range s.Actions {
		found, err := r.act(a, s, r.after(number, i))
		if err != nil {
			return err
		}
		verdicts = append(verdicts, found...)
		switch a.(type) {
		case *Apply, *Destroy:
			w.changed = r.now()
			r.windows[s.Name] = w
		}
	}
	end := r.await(s)
	judgements, err := r.judgements(s, end)
	if err != nil {
		return err
	}
	for _, c := range s.Counters {
		v, err := r.judgeCounter(c)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
	}
	for _, a := range s.Allowances {
		v, err := r.judgeAllowance(a)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
	}
	r.mu.Lock()
	r.steps[number].Ended = end
	r.mu.Unlock()
	r.judging.Add(1)
	go func() {
		defer r.judging.Done()
		for _, j := range judgements {
			verdicts = append(verdicts, j.verdict())
		}
		if r.ctx.Err() != nil {
			// What was under way was not waited for: nobody knows.
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.results[number] = StepResult{Step: s, Begun: begun, Took: end - begun, Verdicts: verdicts}
		r.steps[number].Failed = r.results[number].Failed()
	}()
	return r.ctx.Err()
}

// after returns the action behind one of a step, nil for none.
func (r *Run) after(step, action int) Action {
	if actions := r.scenario.Steps[step].Actions; action+1 < len(actions) {
		return actions[action+1]
	}
	if step+1 < len(r.scenario.Steps) {
		if actions := r.scenario.Steps[step+1].Actions; len(actions) > 0 {
			return actions[0]
		}
	}
	return nil
}

// holds reports whether an action keeps all flows from sending.
func holds(a Action) bool {
	switch a := a.(type) {
	case *Apply:
		return a.Hold
	case *Destroy:
		return a.Hold
	}
	return false
}

// judgements are those of a step's expectations, of this moment.
func (r *Run) judgements(s *Step, end time.Duration) ([]*judgement, error) {
	var out []*judgement
	asks := false
	for _, e := range s.Expects {
		j := r.judgement(e, s, end)
		out = append(out, j)
		asks = asks || e.asksForEntry() || j.looksBad()
	}
	if !asks {
		// The kernel takes long to list entries where somebody else has many.
		return out, nil
	}
	entries, err := r.witness.Entries()
	if err != nil {
		return nil, err
	}
	for _, j := range out {
		j.look(entries)
	}
	return out, nil
}
