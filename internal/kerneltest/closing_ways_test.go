package kerneltest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// way is where chats go: opened inwards or outwards, by or to the host itself,
// or through it.
type way struct {
	name     string
	from, to *lab.Namespace
	opened   flow.Direction
	// client opens it to dial; the server listens at server.
	client       netip.Addr
	dial, server netip.AddrPort
	// hidden is what the server calls the client, if another tool hides it.
	hidden netip.Addr
	// cut says that the change of policy cuts it.
	cut bool
}

// talked is a chat on a way, with the packet that opened it as eth0 saw it, but
// for a source that another tool hid there.
type talked struct {
	*chat
	way
	opened flow.Packet
}

// far returns what the chat's end beyond eth0 is called on the wire.
func (c *talked) far() netip.AddrPort {
	if c.way.opened == flow.Ingress {
		return c.chat.client
	}
	return c.dial
}

// udpServers are sockets that keep sending to everybody who ever sent to them.
type udpServers map[netip.AddrPort]*udpServer

type udpServer struct {
	conn *net.UDPConn
	mu   sync.Mutex
	// heard is what is counted for each client.
	heard map[netip.AddrPort]*chat
}

func (s *udpServer) expect(client netip.AddrPort, c *chat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard[client] = c
}

func (s *udpServer) serve() {
	begun := map[netip.AddrPort]bool{}
	for b := make([]byte, 1<<12); ; {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.mu.Lock()
		c := s.heard[from]
		s.mu.Unlock()
		if err != nil || c == nil {
			continue
		}
		c.toServer.Add(uint64(n))
		if !begun[from] {
			begun[from] = true
			go repeat(func(b []byte) error { _, err := s.conn.WriteToUDPAddrPort(b, from); return err })
		}
	}
}

// chat is newChatVia for UDP. The client sends first, so that conntrack knows who
// opened the flow; seen is what the server calls it. Neither end minds errors,
// such as those that the sender of a packet gets that its own host drops.
func (u udpServers) chat(t *testing.T, name string, w way, client, seen netip.AddrPort) *chat {
	t.Helper()
	s := u[w.server]
	if s == nil {
		conn, err := w.to.ListenUDP(w.server)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		s = &udpServer{conn: conn, heard: map[netip.AddrPort]*chat{}}
		u[w.server] = s
		go s.serve()
	}
	near, err := w.from.DialUDP(client, w.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	c := &chat{name: name, client: client}
	s.expect(seen, c)
	go func() {
		for b := make([]byte, 1<<12); ; {
			n, err := near.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			c.toClient.Add(uint64(n))
		}
	}()
	go repeat(func(b []byte) error { _, err := near.Write(b); return err })
	return c
}

// repeat sends every few milliseconds until the connection is closed.
func repeat(send func([]byte) error) {
	for datagram := make([]byte, 400); ; time.Sleep(3 * time.Millisecond) {
		if errors.Is(send(datagram), net.ErrClosed) {
			return
		}
	}
}

// open opens a TCP and a UDP chat on each way.
func (s *scene) open(t *testing.T, ways []way) []*talked {
	t.Helper()
	var out []*talked
	servers := udpServers{}
	for i, w := range ways {
		for _, proto := range []flow.Protocol{flow.TCP, flow.UDP} {
			c := &talked{way: w}
			name := fmt.Sprintf("%s %s", proto, w.name)
			client := netip.AddrPortFrom(w.client, uint16(20000+i))
			if proto == flow.TCP {
				c.chat = newChatVia(t, name, w.from, w.to, client, w.dial, w.server)
			} else {
				seen := client
				if w.hidden.IsValid() {
					seen = netip.AddrPortFrom(w.hidden, client.Port())
				}
				c.chat = servers.chat(t, name, w, client, seen)
			}
			c.opened = flow.Packet{
				Interface: "eth0", Direction: w.opened, Protocol: proto,
				Source: w.client, Dest: w.dial.Addr(), SourcePort: client.Port(), DestPort: w.dial.Port(),
			}
			out = append(out, c)
		}
	}
	return out
}
