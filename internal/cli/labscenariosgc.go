package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"sgc/apply"
	"sgc/conntrack"
	"sgc/internal/scenario"
	"sgc/policies"
)

// labEnforcer is what the commands do, for scenarios.
type labEnforcer struct{}

// labLockWait is how long a change waits for another sgc in the same place,
// which a scenario never has.
const labLockWait = 10 * time.Second

// at returns a session of a command that acts on a place; what it tells people
// goes into told.
func (labEnforcer) at(place scenario.Place, told io.Writer) *session {
	return &session{
		Streams: Streams{In: strings.NewReader(""), Out: io.Discard, Err: told},
		globals: globals{StateDir: place.StateDir, Netns: place.Netns, NoColor: true},
	}
}

// Apply is sgc apply --auto-approve.
func (e labEnforcer) Apply(ctx context.Context, at scenario.Place, path string, loaded *policies.Loaded, flush string) error {
	var mode conntrack.FlushMode
	if flush != "" {
		if err := mode.UnmarshalText([]byte(flush)); err != nil {
			return err
		}
	}
	var told bytes.Buffer
	s := e.at(at, &told)
	err := s.checkEnforceable(loaded, false)
	if err == nil {
		err = s.change(ctx, labLockWait, func(h *host) error {
			return s.converge(ctx, h, loaded, applyOptions{Path: path, AutoApprove: true, Flush: mode})
		})
	}
	return reported(err, &told)
}

// Destroy is sgc destroy --auto-approve.
func (e labEnforcer) Destroy(ctx context.Context, at scenario.Place) error {
	var told bytes.Buffer
	return reported(e.at(at, &told).destroy(ctx, true, labLockWait), &told)
}

// Counts is sgc status --rules.
func (e labEnforcer) Counts(ctx context.Context, at scenario.Place) (_ map[string]uint64, err error) {
	s := e.at(at, io.Discard)
	dir, err := s.existingDir()
	if err != nil {
		return nil, err
	}
	k, err := apply.Open(s.Netns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	v, err := s.look(ctx, k, dir)
	if err != nil {
		return nil, err
	}
	rows, err := countRules(v)
	if err != nil {
		return nil, err
	}
	counts := map[string]uint64{}
	for _, row := range rows {
		if row.Packets != nil {
			for _, address := range row.Addresses {
				counts[address] = *row.Packets
			}
		}
	}
	return counts, nil
}

// reported gives an error that was told to people the words in which it was. The
// state directory of a scenario is one of the lab's temporary files.
func reported(err error, told *bytes.Buffer) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errReported):
		err = errors.New(strings.TrimSpace(told.String()))
	}
	if text := err.Error(); strings.Contains(text, stateDirAdvice) {
		return errors.New(strings.ReplaceAll(text, stateDirAdvice, tmpDirAdvice))
	}
	return err
}

const (
	// stateDirAdvice is what package apply says of a disk that is full.
	stateDirAdvice = "choose another state directory (--state-dir)"
	tmpDirAdvice   = "set the environment variable TMPDIR to a directory with room for the lab's temporary files"
)
