package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"sgc/policies"
)

// compute calls f, which takes long, knows of no context, and changes nothing.
// Once the context is done it returns the context's error and leaves f to the
// end of the process.
func compute[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type outcome struct {
		result T
		err    error
		fault  *fault
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if r := recover(); r != nil {
				o.fault = newFault(r)
			}
			done <- o
		}()
		o.result, o.err = f()
	}()
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case o := <-done:
		if o.fault != nil {
			panic(o.fault)
		}
		return o.result, o.err
	}
}

// loadPolicy is policies.Load, which an interrupt ends.
func (s *session) loadPolicy(ctx context.Context, path string, in policies.Inputs) (*policies.Loaded, error) {
	return compute(ctx, func() (*policies.Loaded, error) { return policies.Load(path, in), nil })
}

// fault is a panic: a mistake in sgc itself.
type fault struct {
	value any
	// place is the file and line where it happened, or "".
	place string
}

// newFault describes a panic that was recovered just now, by the function that
// calls newFault.
func newFault(value any) *fault {
	if f, ok := value.(*fault); ok {
		return f
	}
	f := &fault{value: value}
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	panicked := false
	for {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panicked && !inRuntime {
			f.place = fmt.Sprintf("%s:%d", filepath.Join(filepath.Base(filepath.Dir(frame.File)), filepath.Base(frame.File)), frame.Line)
			return f
		}
		panicked = panicked || frame.Function == "runtime.gopanic"
		if !more {
			return f
		}
	}
}

// Error is one line.
func (f *fault) Error() string {
	at := ""
	if f.place != "" {
		at = " at " + f.place
	}
	return fmt.Sprintf("sgc itself failed%s (%s); please report this, with the command and the policy", at, strings.Join(strings.Fields(fmt.Sprint(f.value)), " "))
}
