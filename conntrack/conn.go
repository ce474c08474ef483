package conntrack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// receiveSize is the size of the receive buffer. The kernel fills a dump's
// datagrams up to the largest buffer that the socket has ever received with,
// and to 32 KiB at most.
//
// Source: Linux net/netlink/af_netlink.c, netlink_dump and netlink_recvmsg.
const receiveSize = 64 << 10

// answerSeconds bounds the wait for an answer, which the kernel gives before
// the request's system call ends.
const answerSeconds = 10

// errNoAnswer says that the kernel has no more to say, or nothing at all.
var errNoAnswer = errors.New("the kernel gave no answer")

// A socket sends and receives datagrams. Tests put a scripted one in.
type socket interface {
	send(b []byte) error
	// receive fills b with the next datagram. With wait, it waits for one for
	// answerSeconds. It fails with errNoAnswer if there is none, and with
	// ENOBUFS, wrapped, if some were lost; the next call goes on then.
	receive(b []byte, wait bool) (int, error)
	close() error
}

// A conn is one netlink socket, which asks one question at a time.
type conn struct {
	socket
	buf      []byte
	sequence uint32
}

func newConn(s socket) *conn { return &conn{socket: s, buf: make([]byte, receiveSize)} }

// request sends one message; fill appends what stands behind its header.
func (c *conn) request(typ, flags int, fill func(*nlmsg.Message)) error {
	c.sequence++
	var m nlmsg.Message
	m.Begin(typ, flags, c.sequence)
	fill(&m)
	m.Finish()
	return c.send(m.Buf)
}

// dump asks for all objects of a kind and calls each with the payload of every
// one, valid during the call. It is torn if objects changed or answers were
// lost on the way, so that some may be missing or come twice; the others have
// been handed over all the same. An error of each ends it, and the conn is not
// to be used any more.
func (c *conn) dump(typ int, fill func(*nlmsg.Message), each func(payload []byte) error) (torn bool, err error) {
	if err := c.request(typ, unix.NLM_F_DUMP, fill); err != nil {
		return false, err
	}
	for done := false; !done; {
		n, err := c.receive(c.buf, true)
		if errors.Is(err, unix.ENOBUFS) {
			torn = true
			continue
		}
		if err != nil {
			return torn, err
		}
		err = nlmsg.Split(c.buf[:n], func(r nlmsg.Reply) error {
			if r.Sequence != c.sequence || done {
				return nil
			}
			torn = torn || r.Flags&unix.NLM_F_DUMP_INTR != 0
			switch r.Type {
			case unix.NLMSG_NOOP:
				return nil
			case unix.NLMSG_DONE:
				done = true
				return nlmsg.DecodeDone(r)
			case unix.NLMSG_ERROR:
				return nlmsg.InsteadOfObject(r)
			}
			return each(r.Payload)
		})
		if err != nil {
			return torn, err
		}
	}
	return torn, nil
}

// get asks for one object and returns its payload, which is valid until the
// next question.
func (c *conn) get(typ int, fill func(*nlmsg.Message)) ([]byte, error) {
	var found []byte
	err := c.ask(typ, 0, fill, func(r nlmsg.Reply) error {
		if r.Type == unix.NLMSG_ERROR {
			return nlmsg.InsteadOfObject(r)
		}
		found = r.Payload
		return nil
	})
	return found, err
}

// set makes the kernel do something and returns what it says about it.
func (c *conn) set(typ int, fill func(*nlmsg.Message)) error {
	return c.ask(typ, unix.NLM_F_ACK, fill, func(r nlmsg.Reply) error {
		if r.Type != unix.NLMSG_ERROR {
			return fmt.Errorf("message of type %d instead of an acknowledgement", r.Type)
		}
		e, err := nlmsg.DecodeError(r)
		if e != nil {
			return e
		}
		return err
	})
}

// ask sends a message and calls f with the answer to it.
func (c *conn) ask(typ, flags int, fill func(*nlmsg.Message), f func(nlmsg.Reply) error) error {
	if err := c.request(typ, flags, fill); err != nil {
		return err
	}
	for answered := false; !answered; {
		n, err := c.receive(c.buf, true)
		if err != nil {
			return err
		}
		err = nlmsg.Split(c.buf[:n], func(r nlmsg.Reply) error {
			if r.Sequence != c.sequence || answered {
				return nil
			}
			answered = true
			return f(r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// kernelSocket is a netlink socket of the kernel. It blocks its thread, for a
// moment only: netlink answers while it is asked.
type kernelSocket struct{ fd int }

// dialKernel opens a socket in the network namespace of the calling thread.
func dialKernel(protocol int) (*kernelSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, err
	}
	s := &kernelSocket{fd}
	if err := s.setup(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// bufferSize is that of the socket's buffers; it holds the answers to a batch
// many times.
const bufferSize = 1 << 20

func (s *kernelSocket) setup() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Explanations of errors are wanted, copies of the requests are not. With
	// the last one, rtnetlink looks at what a request for a list names; kernels
	// before 4.20 do not have it.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return err
	}
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, option, 1); err != nil {
			return err
		}
	}
	for force, option := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		// Without rights over the host, its limits hold, which are enough.
		if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, force, bufferSize) != nil {
			if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, bufferSize); err != nil {
				return err
			}
		}
	}
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerSeconds})
}

func (s *kernelSocket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (s *kernelSocket) receive(b []byte, wait bool) (int, error) {
	flags := 0
	if !wait {
		flags = unix.MSG_DONTWAIT
	}
	for {
		n, _, got, _, err := unix.Recvmsg(s.fd, b, nil, flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, errNoAnswer
		case err != nil:
			return 0, err
		case got&unix.MSG_TRUNC != 0:
			return 0, fmt.Errorf("netlink datagram of more than %d bytes", len(b))
		}
		return n, nil
	}
}

func (s *kernelSocket) close() error { return unix.Close(s.fd) }
