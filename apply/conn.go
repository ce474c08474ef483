package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// receiveSize is the size of the receive buffer. The kernel fills a dump's
// datagrams up to the largest buffer that the socket has ever received with,
// and to 32 KiB at most; it walks a set from its start for every datagram.
//
// Source: Linux net/netlink/af_netlink.c, netlink_dump and netlink_recvmsg.
const receiveSize = 64 << 10

// errInterrupted says that what was read does not fit together, since somebody
// changed it meanwhile.
var errInterrupted = errors.New("changed while it was read")

// errTorn says that somebody changed nf_tables during a dump. If a dump of
// what one table holds is torn by changes of other tables, it is still whole: the
// kernel goes on after as many of the table's objects as it has sent. In a list of
// the objects of all tables one of any table may be missing, or there twice.
var errTorn = errors.New("changed during a dump")

// unlessTorn is err for those who find out otherwise whether a dump that somebody
// tore is whole.
func unlessTorn(err error) error {
	if errors.Is(err, errTorn) {
		return nil
	}
	return err
}

// A conn is one netlink socket of the netfilter subsystem.
type conn struct {
	socket *socket.Conn
	buf    []byte
}

// dial opens a socket in the network namespace of the file descriptor netns,
// or in the caller's own if it is 0.
func dial(netns int) (*conn, error) {
	s, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, "netlink", &socket.Config{NetNS: netns})
	if err != nil {
		return nil, err
	}
	c := &conn{socket: s, buf: make([]byte, receiveSize)}
	if err := c.setup(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return c, nil
}

func (c *conn) setup() error {
	if err := c.socket.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Explanations of errors are wanted, copies of the requests are not: of a
	// message of 60,000 bytes they would fill the receive buffer.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := c.socket.SetsockoptInt(unix.SOL_NETLINK, option, 1); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) close() error { return c.socket.Close() }

// begin starts a message of the nf_tables subsystem.
func begin(m *nlmsg.Message, typ, flags int, family uint8, sequence uint32) {
	m.Begin(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, sequence)
	m.Netfilter(family, 0)
}

// request sends one message of type typ; fill appends its attributes.
func (c *conn) request(ctx context.Context, typ, flags int, family uint8, fill func(*nlmsg.Message)) error {
	var m nlmsg.Message
	begin(&m, typ, flags, family, 1)
	if fill != nil {
		fill(&m)
	}
	m.Finish()
	_, err := c.socket.Sendmsg(ctx, m.Buf, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	return err
}

// receive waits for one datagram and calls f for each of its messages.
func (c *conn) receive(ctx context.Context, f func(nlmsg.Reply) error) error {
	n, _, flags, _, err := c.socket.Recvmsg(ctx, c.buf, nil, 0)
	if err != nil {
		return err
	}
	if flags&unix.MSG_TRUNC != 0 {
		return fmt.Errorf("netlink datagram of more than %d bytes", len(c.buf))
	}
	return nlmsg.Split(c.buf[:n], f)
}

// dump asks for all objects of a kind and calls each with the family and the
// attributes of every one; they are valid only during the call. It returns
// errTorn, after all of the calls, if the dump is torn.
func (c *conn) dump(ctx context.Context, typ int, family uint8, fill func(*nlmsg.Message), each func(family uint8, attributes []byte) error) error {
	if err := c.request(ctx, typ, unix.NLM_F_DUMP, family, fill); err != nil {
		return err
	}
	var failed, torn error
	for done := false; !done; {
		err := c.receive(ctx, func(r nlmsg.Reply) error {
			if r.Flags&unix.NLM_F_DUMP_INTR != 0 {
				torn = errTorn
			}
			switch r.Type {
			case unix.NLMSG_DONE:
				done = true
				return nlmsg.DecodeDone(r)
			case unix.NLMSG_ERROR:
				done = true
				return nlmsg.InsteadOfObject(r)
			}
			if len(r.Payload) < nlmsg.NetfilterSize {
				return nlmsg.ErrMalformed
			}
			// A dump is read to its end, so that the socket stays usable.
			if failed != nil {
				return nil
			}
			if err := each(r.Payload[0], r.Payload[nlmsg.NetfilterSize:]); err != nil {
				failed = err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	return torn
}

// get asks for one object and returns its attributes, which are valid until
// the next receive.
func (c *conn) get(ctx context.Context, typ int, family uint8, fill func(*nlmsg.Message)) ([]byte, error) {
	if err := c.request(ctx, typ, 0, family, fill); err != nil {
		return nil, err
	}
	var found []byte
	err := c.receive(ctx, func(r nlmsg.Reply) error {
		if r.Type == unix.NLMSG_ERROR {
			return nlmsg.InsteadOfObject(r)
		}
		if len(r.Payload) < nlmsg.NetfilterSize {
			return nlmsg.ErrMalformed
		}
		found = r.Payload[nlmsg.NetfilterSize:]
		return nil
	})
	return found, err
}

// generation returns the number of the last transaction of the namespace.
func (c *conn) generation(ctx context.Context) (uint32, error) {
	b, err := c.get(ctx, unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, nil)
	if err != nil {
		return 0, err
	}
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type == unix.NFTA_GEN_ID {
			id := a.Uint32()
			return id, a.Err
		}
	}
	return 0, errors.New("nf_tables reports no generation")
}
