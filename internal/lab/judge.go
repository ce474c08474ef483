package lab

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nflog"
)

// Judge asks the kernel of a stand's host about packets, thousands a second.
// It is to be opened after the policy was applied: it adds a table that reads
// conntrack's state, which counts as a reason to keep open flows in conntrack.
// While it is open, nothing but its own packets leaves the host.
type Judge struct {
	stand    *Stand
	observer *observer
	log      *nflog.Conn
	// window is how many packets may be on their way at once.
	window  int
	witness *Witness
	nextID  uint16
}

// Probe is a packet to ask about.
type Probe struct {
	Packet flow.Packet
	// Envelope's ID and Class are the judge's.
	Envelope Envelope
	// GoOn lets a packet that passed go on to its destination, so that
	// conntrack keeps its entry. All others leave no trace in conntrack, and
	// may be asked about again and again.
	GoOn bool
}

// Outcome is what the kernel did with a packet.
type Outcome struct {
	// Arrived says that the packet came to the host's netfilter hooks. Where
	// it did not, nothing else of the outcome counts.
	Arrived bool
	// Passed says that the ruleset let it through.
	Passed bool
	// Classified says that it came past conntrack, so that State and Untracked
	// are known. It is false for packets that were dropped before that.
	Classified bool
	// State is what conntrack says of the packet.
	State flow.State
	// Untracked says that conntrack was told to leave the packet alone. State
	// is New then.
	Untracked bool
	// Err is why a packet that did not arrive could not be sent, nil where
	// that is not known.
	Err error
}

// HasEntry says that conntrack has an entry that the packet belongs to, or
// would have made one had the packet gone on.
func (o Outcome) HasEntry() bool {
	return o.Classified && !o.Untracked && o.State != flow.Invalid
}

func (o Outcome) String() string {
	if !o.Arrived {
		return fmt.Sprintf("did not arrive (%v)", o.Err)
	}
	verdict := "dropped"
	if o.Passed {
		verdict = "passed"
	}
	switch {
	case !o.Classified:
		return verdict + " before conntrack"
	case o.Untracked:
		return verdict + ", untracked"
	default:
		return verdict + ", " + o.State.String()
	}
}

const (
	judgeGroup = 7363
	// judgeWindow packets are on their way at once. It is far below the
	// kernel's backlog of a CPU, net.core.netdev_max_backlog.
	judgeWindow = 256
	// judgeRounds is how often a packet is sent that did not arrive: the
	// backlog is shared with everything else that the machine receives.
	judgeRounds = 5
	// judgePatience is how long the kernel may take over a window, and judgeEnd
	// after how long the packet that ends it is sent again, which may be lost as
	// any other.
	judgePatience = 30 * time.Second
	judgeEnd      = time.Second
	// reportsEach is how many reports a packet makes at most.
	reportsEach = 3
	// reportBytes of a packet are enough for both network headers.
	reportBytes = 64
	// reportSize is more than what one report takes of the receive buffer.
	reportSize = 2048
)

// OpenJudge adds the observing table to the stand's host.
func (s *Stand) OpenJudge() (*Judge, error) {
	j := &Judge{stand: s}
	if err := j.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open a judge: %w", err), j.Close())
	}
	return j, nil
}

func (j *Judge) open() (err error) {
	if j.witness, err = j.stand.Host.OpenWitness(); err != nil {
		return err
	}
	if err := j.openLog(); err != nil {
		return err
	}
	var passive []string
	for i := range j.stand.ports {
		passive = append(passive, fmt.Sprintf("%s%d", PassivePrefix, i))
	}
	j.observer, err = j.stand.Host.openObserver(judgeGroup, passive)
	return err
}

// openLog becomes the reader of the observer's reports. The judge waits for
// each, so that none is to wait for others.
func (j *Judge) openLog() (err error) {
	j.log, err = nflog.Open(nflog.Config{NetNS: j.stand.Host.fd, Groups: []uint16{judgeGroup}, Bytes: reportBytes, AtOnce: true})
	if err != nil {
		return err
	}
	size, err := j.log.Buffer()
	if err != nil {
		return err
	}
	j.window = min(judgeWindow, max(1, size/reportSize/reportsEach-1))
	return nil
}

// Close removes the observing table. The conntrack entries stay. A second call
// does nothing.
func (j *Judge) Close() error {
	var errs []error
	if j.observer != nil {
		errs = append(errs, j.observer.close())
	}
	if j.log != nil {
		errs = append(errs, j.log.Close())
	}
	if j.witness != nil {
		errs = append(errs, j.witness.Close())
	}
	j.observer, j.log, j.witness = nil, nil, nil
	return errors.Join(errs...)
}

// Witness returns the conntrack entries of the host.
func (j *Judge) Witness() *Witness { return j.witness }

// Ask sends the probes in order and returns an outcome for each. A probe whose
// packet says Established or Related gets a conntrack entry first: of the flow
// that it answers, or that the quoted packet belongs to. For protocols that sgc
// tracks by itself that takes an opener (GoOn) in the other direction instead.
// The entries stay until Witness().Flush. The error says that the lab failed;
// then no outcome counts.
func (j *Judge) Ask(probes []Probe) ([]Outcome, error) {
	for i := range probes {
		if err := j.prepare(&probes[i]); err != nil {
			return nil, err
		}
	}
	outcomes := make([]Outcome, len(probes))
	err := j.stand.Host.Do(func() error {
		if err := pin(); err != nil {
			return err
		}
		for first := 0; first < len(probes); first += j.window {
			last := min(first+j.window, len(probes))
			if err := j.askWindow(probes[first:last], outcomes[first:last]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("judge packets: %w", err)
	}
	return outcomes, nil
}

// AskOne is Ask for one packet that leaves no trace.
func (j *Judge) AskOne(p flow.Packet) (Outcome, error) {
	return j.one(Probe{Packet: p})
}

// Open sends a packet that goes on if it passes: what it opens is known to
// conntrack afterwards.
func (j *Judge) Open(p flow.Packet) (Outcome, error) {
	return j.one(Probe{Packet: p, GoOn: true})
}

func (j *Judge) one(p Probe) (Outcome, error) {
	outcomes, err := j.Ask([]Probe{p})
	if err != nil {
		return Outcome{}, err
	}
	return outcomes[0], nil
}

// pin keeps the calling thread, which has to end with the call of Do, on its
// processor: packets that come over a veth are queued by processor, and only
// one queue keeps their order.
func pin() error {
	var cpu uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return fmt.Errorf("ask for the processor: %w", errno)
	}
	var set unix.CPUSet
	set.Set(int(cpu))
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("stay on processor %d: %w", cpu, err)
	}
	return nil
}

// prepare makes the conntrack entry that the packet's state asks for. A packet
// that cannot have one is sent without: the outcome tells its true state.
func (j *Judge) prepare(probe *Probe) error {
	p, id := &probe.Packet, probe.Envelope.EchoID
	var opener flow.Packet
	switch {
	case p.Protocol.IsOther(p.Family()):
		return nil
	case p.State == flow.Related && p.Quoted != nil:
		opener = *p.Quoted
	case p.State == flow.Established && p.Protocol.HasPorts():
		opener = p.Reply()
	case p.State == flow.Established:
		opener = queryFor(p)
	default:
		return nil
	}
	if opener.Protocol.IsOther(opener.Family()) {
		return nil
	}
	if err := j.witness.Create(&opener, id); err != nil && !errors.Is(err, ErrNoEntry) {
		return err
	}
	return nil
}

// queryFor returns the query that p answers, or p itself, if it is a query, of
// which conntrack then believes that it was answered before.
func queryFor(p *flow.Packet) flow.Packet {
	f := p.Family()
	for query := range 256 {
		if answer, ok := answerOf(f, uint8(query)); ok && answer == p.ICMPType {
			opener := p.Reply()
			opener.ICMPType = uint8(query)
			return opener
		}
	}
	return *p
}
