package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sgc/internal/flow"
)

// Forwarding says which interfaces there are, and in which families the host
// forwards packets that come in on any of them.
type Forwarding struct {
	// Interfaces are sorted; the loopback is left out.
	Interfaces []string
	IPv4, IPv6 bool
}

// In returns the flag of one family.
func (f *Forwarding) In(family flow.Family) bool {
	if family == flow.IPv4 {
		return f.IPv4
	}
	return f.IPv6
}

// Forwarding reads the settings of the network namespace. A family that the
// kernel does not have forwards nothing.
//
// Source: Linux Documentation/networking/ip-sysctl.rst, conf/*/forwarding.
func (k *Kernel) Forwarding() (*Forwarding, error) {
	f := &Forwarding{}
	err := k.inside(func() error {
		names := map[string]bool{}
		for _, family := range []struct {
			dir  string
			flag *bool
		}{{"ipv4", &f.IPv4}, {"ipv6", &f.IPv6}} {
			dir := filepath.Join("/proc/sys/net", family.dir, "conf")
			entries, err := os.ReadDir(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("find out which interfaces forward packets: %w", err)
			}
			for _, e := range entries {
				name := e.Name()
				if name == "all" || name == "default" || name == "lo" {
					continue
				}
				names[name] = true
				value, err := os.ReadFile(filepath.Join(dir, name, "forwarding"))
				// An interface may go at any moment.
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("find out whether %s forwards packets: %w", name, err)
				}
				if strings.TrimSpace(string(value)) == "1" {
					*family.flag = true
				}
			}
		}
		for name := range names {
			f.Interfaces = append(f.Interfaces, name)
		}
		return nil
	})
	slices.Sort(f.Interfaces)
	return f, err
}
