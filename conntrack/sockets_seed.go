package conntrack

import (
	"context"
	"errors"

	"sgc/internal/flow"
)

// crosses reports whether the packets of a connected socket cross the host's
// interfaces: they do not where the host talks to itself. A socket without a
// peer has no packets.
func (r *Routes) crosses(s *Socket) bool {
	switch s.State {
	case Listening, Unconnected:
		return false
	}
	local, remote := s.Local.Addr(), s.Remote.Addr()
	if local.IsUnspecified() || remote.IsUnspecified() || local.IsLoopback() || remote.IsLoopback() {
		return false
	}
	return !r.isOwn(remote)
}

// Seed makes an entry for each of the host's TCP connections and connected UDP
// sockets for which decide says so, and with the direction in which it says that
// the flow was opened, as Openers tells it. Sockets with which the host talks to
// itself are not asked about, nor those in TimeWait. See Socket.Entry for what the
// entries are like, and Batch.Create for what becomes of flows that have one.
//
// Seed ends as Sockets does, with the result of what was done till then. A torn
// list is read again; what was made the first time counts as Exists, too, then.
func (t *Table) Seed(ctx context.Context, decide func(*Socket) (opened flow.Direction, create bool)) (Result, error) {
	timeouts, err := t.FlowTimeouts()
	if err != nil {
		return Result{}, err
	}
	routes, err := t.Routes()
	if err != nil {
		return Result{}, err
	}
	result, err := t.inBatches(func(b *Batch) error {
		return t.Sockets(ctx, func(s *Socket) error {
			if s.State == TimeWait || !routes.crosses(s) {
				return nil
			}
			opened, create := decide(s)
			if !create {
				return nil
			}
			e, ok := s.Entry(opened, timeouts)
			if !ok {
				return nil
			}
			return b.Create(&e)
		})
	})
	return result, errors.Join(err, routes.Close())
}
