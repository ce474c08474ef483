package kerneltest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// busybox returns the path of Debian's busybox, which has a DHCP client and a
// DHCP server that know nothing of sgc.
func busybox(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err == nil {
		var list []byte
		if list, err = exec.Command(path, "--list").Output(); err == nil {
			applets := strings.Fields(string(list))
			if slices.Contains(applets, "udhcpc") && slices.Contains(applets, "udhcpd") {
				return path
			}
			err = errors.New("it has no udhcpc and udhcpd")
		}
	}
	if os.Getenv(labtest.RequireVariable) == "1" {
		t.Fatalf("%s=1, but there is no busybox to witness DHCP: %v", labtest.RequireVariable, err)
	}
	t.Skipf("SKIP: no busybox to witness DHCP: %v", err)
	return ""
}

// start runs a command in a namespace until the test ends, and returns the
// lines that it prints to its standard output.
func start(t *testing.T, ns *lab.Namespace, path string, args ...string) (*exec.Cmd, <-chan string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	// A child is born into the namespace of the thread that starts it.
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said:\n%s", args[0], said.String())
		}
	})
	return cmd, lines
}

// leased is the address that the host may have.
var leased = addr("192.0.2.101")

// serveDHCP leases an address to the host on its neighbour's wire. The lease is
// a static one: the server would look two seconds for others who have it.
func serveDHCP(t *testing.T, host, ns *lab.Namespace) {
	t.Helper()
	hardware, err := host.Hardware("eth0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	leases, config := filepath.Join(dir, "leases"), filepath.Join(dir, "udhcpd.conf")
	text := fmt.Sprintf("start 192.0.2.100\nend 192.0.2.109\ninterface wire\nlease_file %s\npidfile %s\nstatic_lease %s %s\noption subnet 255.255.255.0\noption lease 3600\n",
		leases, filepath.Join(dir, "pid"), hardware, leased)
	for path, content := range map[string]string{leases: "", config: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, ns, busybox(t), "udhcpd", "-f", config)
}

// A client without an address gets one and renews it. It asks for the first
// lease below netfilter, and hears all answers there, but it sends the renewal
// as any process sends. Where that fails it goes on below, and to everybody.
func TestDHCPClientKeepsItsLease(t *testing.T) {
	t.Parallel()
	client := busybox(t)
	for name, text := range nothingPasses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, far := newLink(t, text, nil, prefixes("192.0.2.20/24")...)
			serveDHCP(t, host, far)
			wire := wireTo(t, far, host)
			script := filepath.Join(t.TempDir(), "script")
			// Nobody may run a file that somebody else has open for writing, as a
			// process has that another test starts meanwhile.
			syscall.ForkLock.RLock()
			err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$1 $ip\"\n"), 0o700)
			syscall.ForkLock.RUnlock()
			if err != nil {
				t.Fatal(err)
			}
			cmd, lines := start(t, host, client, "udhcpc", "-f", "-i", "eth0", "-s", script, "-t", "60", "-T", "1")
			wait := func(event string) netip.Addr {
				t.Helper()
				for end := time.After(patience); ; {
					select {
					case line, ok := <-lines:
						if !ok {
							t.Fatal("the client ended")
						}
						if ip, ok := strings.CutPrefix(line, event+" "); ok {
							return addr(ip)
						}
					case <-end:
						t.Fatalf("no %q after %s", event, patience)
					}
				}
			}
			ip := wait("bound")
			if ip != leased {
				t.Errorf("the client has address %s, want %s", ip, leased)
			}
			if err := host.AddAddress("eth0", netip.PrefixFrom(ip, 24)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			if again := wait("renew"); again != ip {
				t.Errorf("the client has address %s after %s", again, ip)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			for {
				b, err := wire.Receive(ctx)
				if err != nil {
					t.Fatalf("the renewal came from below: %v", err)
				}
				p, _, err := lab.Parse(b)
				if err == nil && p.Source == ip && p.Dest == addr("192.0.2.20") && p.SourcePort == 68 && p.DestPort == 67 {
					break
				}
			}
		})
	}
}

// dhcpMessage is one of a client's two, as RFC 2131 lays them out, with the
// wish for an answer to everybody: the client has no address yet.
func dhcpMessage(kind byte, id uint32, hardware net.HardwareAddr, options ...byte) []byte {
	b := make([]byte, 240, 300)
	b[0], b[1], b[2] = 1, 1, 6
	binary.BigEndian.PutUint32(b[4:], id)
	b[10] = 0x80
	copy(b[28:], hardware)
	copy(b[236:], []byte{99, 130, 83, 99})
	b = append(b, 53, 1, kind)
	b = append(append(b, options...), 255)
	return append(b, make([]byte, 300-len(b))...)
}

// dhcpAnswer returns the kind, the offered address and the server of an answer.
func dhcpAnswer(b []byte, id uint32) (kind byte, offered, server []byte) {
	if len(b) < 240 || b[0] != 2 || binary.BigEndian.Uint32(b[4:]) != id {
		return 0, nil, nil
	}
	for o := b[240:]; len(o) > 2 && o[0] != 255 && len(o) >= 2+int(o[1]); {
		switch value := o[2 : 2+o[1]]; o[0] {
		case 53:
			kind = value[0]
		case 54:
			server = value
		}
		o = o[2+o[1]:]
	}
	return kind, b[16:20], server
}

// A client that asks through the kernel's UDP, from an interface without any
// address, gets a lease: both broadcasts pass.
func TestDHCPFromAnInterfaceWithoutAddress(t *testing.T) {
	t.Parallel()
	busybox(t)
	for name, text := range nothingPasses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, far := newLink(t, text, nil, prefixes("192.0.2.20/24")...)
			serveDHCP(t, host, far)
			hardware, err := host.Hardware("eth0")
			if err != nil {
				t.Fatal(err)
			}
			conn, err := host.ListenUDP(addrPort("0.0.0.0:68"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			control(t, conn, func(fd int) error {
				return errors.Join(unix.BindToDevice(fd, "eth0"), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
			})
			var seed [4]byte
			if _, err := rand.Read(seed[:]); err != nil {
				t.Fatal(err)
			}
			id := binary.BigEndian.Uint32(seed[:])
			// The server may not be there yet, so that one asks again.
			ask := func(message []byte, want byte) (offered, server []byte) {
				t.Helper()
				b := make([]byte, 1500)
				for end := time.Now().Add(patience); time.Now().Before(end); {
					if _, err := conn.WriteToUDPAddrPort(message, addrPort("255.255.255.255:67")); err != nil {
						t.Fatal(err)
					}
					if err := conn.SetReadDeadline(time.Now().Add(impatience)); err != nil {
						t.Fatal(err)
					}
					for {
						n, _, err := conn.ReadFromUDPAddrPort(b)
						if err != nil {
							break
						}
						if kind, offered, server := dhcpAnswer(b[:n], id); kind == want {
							return offered, server
						}
					}
				}
				t.Fatalf("no answer of kind %d to message %d", want, message[242])
				return nil, nil
			}
			const discover, offer, request, ack = 1, 2, 3, 5
			offered, server := ask(dhcpMessage(discover, id, hardware), offer)
			options := slices.Concat([]byte{50, 4}, offered, []byte{54, 4}, server)
			got, _ := ask(dhcpMessage(request, id, hardware, options...), ack)
			if ip, _ := netip.AddrFromSlice(got); ip != leased {
				t.Errorf("the lease is %s, want %s", ip, leased)
			}
		})
	}
}

// A DHCPv6 client asks all servers of its link and gets an answer. From and to
// other ports nobody gets one.
func TestDHCPv6ClientPorts(t *testing.T) {
	t.Parallel()
	servers := addr("ff02::1:2")
	host, far := newLink(t, nothingPasses["both"], nil)
	for _, tt := range []struct {
		client, server, answers, to uint16
		asked, answered             bool
	}{
		{546, 547, 547, 546, true, true},
		{546, 547, 548, 546, true, false},
		{546, 547, 547, 545, true, false},
		{545, 547, 547, 545, false, false},
		{546, 548, 547, 548, false, false},
		{547, 546, 546, 547, false, false},
	} {
		t.Run(fmt.Sprintf("%d to %d, %d to %d", tt.client, tt.server, tt.answers, tt.to), func(t *testing.T) {
			client, server := listenOn(t, host, "eth0", tt.client), listenOn(t, far, "wire", tt.server)
			control(t, server, func(fd int) error {
				index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
				return errors.Join(err, unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
					&unix.IPv6Mreq{Multiaddr: servers.As16(), Interface: uint32(index)}))
			})
			b, wait := make([]byte, 100), impatience
			if tt.asked {
				wait = patience
			}
			_, err := client.WriteToUDP([]byte("solicit"), &net.UDPAddr{IP: servers.AsSlice(), Port: int(tt.server)})
			var from *net.UDPAddr
			if err == nil {
				_, from, err = readFrom(server, b, wait)
			}
			if (err == nil) != tt.asked {
				t.Fatalf("the server got %v, want it to be asked: %t", err, tt.asked)
			}
			if !tt.asked {
				return
			}
			if wait = impatience; tt.answered {
				wait = patience
			}
			if tt.answers != tt.server {
				server = listenOn(t, far, "wire", tt.answers)
			}
			if tt.to != tt.client {
				client = listenOn(t, host, "eth0", tt.to)
			}
			if _, err := server.WriteToUDP([]byte("advertise"), &net.UDPAddr{IP: from.IP, Port: int(tt.to), Zone: from.Zone}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := readFrom(client, b, wait); (err == nil) != tt.answered {
				t.Errorf("the client got %v, want it to be answered: %t", err, tt.answered)
			}
		})
	}
}

// listenOn opens a UDP socket of IPv6 that is bound to an interface.
func listenOn(t *testing.T, ns *lab.Namespace, iface string, port uint16) *net.UDPConn {
	t.Helper()
	c, err := ns.ListenUDP(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	control(t, c, func(fd int) error { return unix.BindToDevice(fd, iface) })
	return c
}

func readFrom(c *net.UDPConn, b []byte, wait time.Duration) (int, *net.UDPAddr, error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, nil, err
	}
	return c.ReadFromUDP(b)
}
