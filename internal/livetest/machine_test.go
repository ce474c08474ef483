package livetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
)

// machine is a flow that no sgc ever sees, of the same pace as a talk: it stands
// still only if the machine does, or this process on it.
type machine struct {
	mu       sync.Mutex
	last     int64
	silences []silence

	// sender sends the flow, and marks packets behind others; marks has a channel
	// for each mark that is awaited.
	sender *net.UDPConn
	number atomic.Uint64
	marks  sync.Map
}

// silence is a time in which nothing arrived.
type silence struct{ from, to int64 }

// hiccup is the longest silence that is none.
const hiccup = int64(4 * pace)

// control is the one of this process. It begins with the first stand, and ends
// with the process.
var control = sync.OnceValues(func() (*machine, error) {
	m := &machine{last: now()}
	return m, m.run()
})

func controlOf(t testing.TB) *machine {
	t.Helper()
	m, err := control()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) run() error {
	var ends [2]*lab.Namespace
	for i := range ends {
		ns, err := lab.NewNamespace("control")
		if err != nil {
			return err
		}
		ends[i] = ns
	}
	if err := lab.Connect(
		lab.End{Namespace: ends[0], Interface: "eth0", Addresses: prefixes("192.0.2.1/24")},
		lab.End{Namespace: ends[1], Interface: "eth0", Addresses: prefixes("192.0.2.2/24")},
	); err != nil {
		return err
	}
	at := netip.MustParseAddrPort("192.0.2.2:7")
	receiver, err := ends[1].ListenUDP(at)
	if err != nil {
		return err
	}
	sender, err := ends[0].DialUDP(netip.AddrPort{}, at)
	if err != nil {
		return errors.Join(err, receiver.Close())
	}
	m.sender = sender
	go func() {
		for message := make([]byte, 100); ; time.Sleep(pace) {
			if _, err := sender.Write(message); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	go func() {
		for b := make([]byte, 200); ; {
			n, err := receiver.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if n != markSize {
				m.hear(now())
			} else if arrived, ok := m.marks.LoadAndDelete(binary.BigEndian.Uint64(b)); ok {
				close(arrived.(chan struct{}))
			}
		}
	}()
	return nil
}

// markSize is the length of a message that drain sends, which no other one has.
const markSize = 8

// drain waits until every packet that was sent before, in whatever namespace, has
// come to the rules of the host that it was sent to. A packet may wait for long
// until the processor on which it was sent has time for it, and those of another
// one may overtake it; but of one processor each comes in its turn.
func (m *machine) drain(t testing.TB) {
	t.Helper()
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	errs := make(chan error, len(allowed)*64)
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			wait.Go(func() { errs <- m.drainOne(cpu) })
		}
	}
	wait.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// drainOne sends a mark from one processor, and waits for it. Its goroutine ends
// with its thread.
func (m *machine) drainOne(cpu int) error {
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("run on processor %d: %w", cpu, err)
	}
	for end := time.Now().Add(patience); ; {
		number, arrived := m.number.Add(1), make(chan struct{})
		m.marks.Store(number, arrived)
		if _, err := m.sender.Write(binary.BigEndian.AppendUint64(nil, number)); err != nil {
			return fmt.Errorf("mark the packets of processor %d: %w", cpu, err)
		}
		select {
		case <-arrived:
			return nil
		case <-time.After(time.Second): // it was lost
		}
		if time.Now().After(end) {
			return fmt.Errorf("the packets of processor %d stand still", cpu)
		}
	}
}

func (m *machine) hear(t int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t-m.last > hiccup {
		m.silences = append(m.silences, silence{m.last, t})
	}
	m.last = t
}

// stood returns for how long the machine stood still between two times.
func (m *machine) stood(from, to int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := int64(0)
	within := func(s silence) bool {
		if s.to <= from {
			return false
		}
		all += max(0, min(s.to, to)-max(s.from, from))
		return true
	}
	if to-m.last > hiccup {
		within(silence{m.last, to})
	}
	for i := len(m.silences) - 1; i >= 0 && within(m.silences[i]); i-- {
	}
	return all
}

// net is how long a time was but for what the machine is to blame for: where it
// stands still, TCP believes that something is lost, and waits as long again.
func (m *machine) net(from, to int64) time.Duration {
	return time.Duration(to - from - 2*m.stood(from, to))
}

// rest sleeps in short naps: on a machine that stalls, one long sleep may be over
// before anybody else has had a turn.
func rest(d time.Duration) {
	const nap = 10 * time.Millisecond
	for range d / nap {
		time.Sleep(nap)
	}
}

// Only what the machine stood still for is taken off.
func TestMachineIsToBlameForItsStalls(t *testing.T) {
	t.Parallel()
	ms := func(n int) int64 { return int64(n) * int64(time.Millisecond) }
	m := &machine{}
	for _, at := range []int{5, 10, 510, 515, 535, 600, 1600} {
		m.hear(ms(at))
	}
	for _, tt := range []struct{ from, to, want int }{
		{0, 10, 0}, {10, 510, 500}, {0, 2000, 500 + 65 + 1000 + 400}, {200, 300, 100}, {515, 535, 0}, {700, 1700, 900 + 100}, {1600, 1615, 0},
	} {
		if got := m.stood(ms(tt.from), ms(tt.to)); got != ms(tt.want) {
			t.Errorf("from %d to %d ms: %s, want %d ms", tt.from, tt.to, time.Duration(got), tt.want)
		}
	}
}
