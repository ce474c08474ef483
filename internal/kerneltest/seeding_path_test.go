package kerneltest

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// pathDelay is how long a packet is under way on a distant path. Over a wire of
// the lab, answers are there before the next segment leaves, and no window is
// ever used up.
const pathDelay = 50 * time.Millisecond

// Packets there are of up to pathMTU bytes; what is more than pathLength of
// them, one way, is lost.
const (
	pathMTU    = 4000
	pathLength = 1 << 10
)

// distantPath connects two namespaces by a path on which packets take their time.
// It returns false where the process may not make tunnels, as in most user
// namespaces.
func distantPath(t *testing.T, a, b lab.End) bool {
	t.Helper()
	var carriers sync.WaitGroup
	t.Cleanup(carriers.Wait) // they end when the tunnels are closed, which is before
	ends := [2]*os.File{tunnel(t, a), tunnel(t, b)}
	if ends[0] == nil || ends[1] == nil {
		return false
	}
	for i, from := range ends {
		to := ends[1-i]
		packets := make(chan delayedPacket, pathLength)
		carriers.Go(func() {
			defer close(packets)
			for buf := make([]byte, 1<<16); ; {
				n, err := from.Read(buf)
				if err != nil {
					return // closed
				}
				select {
				case packets <- delayedPacket{append([]byte(nil), buf[:n]...), time.Now().Add(pathDelay)}:
				default: // the path is full
				}
			}
		})
		carriers.Go(func() {
			for p := range packets {
				time.Sleep(time.Until(p.due))
				if _, err := to.Write(p.bytes); err != nil && !errors.Is(err, fs.ErrClosed) {
					t.Errorf("a packet of %d bytes is lost: %v", len(p.bytes), err)
				}
			}
		})
	}
	return true
}

type delayedPacket struct {
	bytes []byte
	due   time.Time
}

// tunnel makes an interface whose packets this process carries, or returns nil.
func tunnel(t *testing.T, end lab.End) *os.File {
	t.Helper()
	var f *os.File
	err := end.Namespace.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := setInterface(fd, unix.TUNSETIFF, end.Interface, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI) }); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		f = os.NewFile(uintptr(fd), "tunnel "+end.Interface)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Logf("no tunnels here: %v", err)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := end.Namespace.SetMTU(end.Interface, pathMTU); err != nil {
		t.Fatal(err)
	}
	for _, p := range end.Addresses {
		if err := end.Namespace.AddAddress(end.Interface, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := end.Namespace.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(
			setInterface(fd, unix.SIOCSIFTXQLEN, end.Interface, func(r *unix.Ifreq) { r.SetUint32(pathLength) }),
			setInterface(fd, unix.SIOCSIFFLAGS, end.Interface, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) }),
			unix.Close(fd))
	}); err != nil {
		t.Fatal(err)
	}
	return f
}

func setInterface(fd int, request uint, name string, fill func(*unix.Ifreq)) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	fill(r)
	return unix.IoctlIfreq(fd, request, r)
}

// distantScene is a scene without routing, and with a distant path instead of
// the wire where there can be one.
func distantScene(t *testing.T) (s *scene, distant bool) {
	t.Helper()
	s = &scene{client: eager(t, "client"), host: eager(t, "host")}
	s.witness = labtest.Witness(t, s.host)
	host := lab.End{Namespace: s.host, Interface: "eth0", Addresses: prefixes("192.0.2.10/24", "2001:db8:2::10/64")}
	client := lab.End{Namespace: s.client, Interface: "wire", Addresses: prefixes("192.0.2.20/24", "2001:db8:2::20/64",
		"198.51.100.7/32", "2001:db8:77::7/128")}
	if distant = distantPath(t, host, client); !distant {
		labtest.Connect(t, host, client)
	}
	for _, r := range []lab.Route{
		{Dest: prefix("0.0.0.0/0"), Via: addr("192.0.2.20"), Interface: "eth0"},
		{Dest: prefix("::/0"), Via: addr("2001:db8:2::20"), Interface: "eth0"},
	} {
		if err := s.host.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	return s, distant
}
