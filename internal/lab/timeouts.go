package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Timeout is an idle timeout of conntrack in a namespace.
type Timeout struct {
	// Name is the setting's without what all have in common: icmp,
	// tcp_established, udp_stream.
	Name string
	// Was and Is are in seconds.
	Was, Is int
}

const netfilterSettings = "/proc/sys/net/netfilter"

// ScaleTimeouts divides the idle timeouts of the namespace's conntrack, rounded
// up to whole seconds, and returns them in the order of their names.
func (n *Namespace) ScaleTimeouts(divisor int) ([]Timeout, error) {
	var out []Timeout
	err := n.Do(func() error {
		// The kernel shows the settings of the namespace of the thread.
		files, err := filepath.Glob(netfilterSettings + "/nf_conntrack_*timeout*")
		if err != nil {
			return err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			was, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
			is := (was + divisor - 1) / divisor
			if err := os.WriteFile(file, []byte(strconv.Itoa(is)), 0); err != nil {
				return err
			}
			name := strings.TrimPrefix(filepath.Base(file), "nf_conntrack_")
			name = strings.TrimSuffix(strings.Replace(name, "_timeout_", "_", 1), "_timeout")
			out = append(out, Timeout{name, was, is})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("scale the conntrack timeouts of %s: %w", n.name, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("scale the conntrack timeouts of %s: the kernel shows none below %s", n.name, netfilterSettings)
	}
	return out, nil
}
