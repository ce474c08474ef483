package conntrack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctlMax is the setting of the table's limit, as sysctl names it.
const sysctlMax = "net.netfilter.nf_conntrack_max"

// sysctlPath returns the file of a setting. The kernel looks below /proc/sys/net
// in the namespace of the thread that opens the file.
func (t *Table) sysctlPath(name string) string {
	return filepath.Join(t.sysctl, strings.ReplaceAll(name, ".", "/"))
}

// readSysctl reads a setting of the namespace, without the newline at its end.
func (t *Table) readSysctl(name string) (string, error) {
	var value string
	err := t.inside(func() error {
		b, err := os.ReadFile(t.sysctlPath(name))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		value = strings.TrimSuffix(string(b), "\n")
		return nil
	})
	return value, err
}

// writeSysctl changes a setting of the namespace.
func (t *Table) writeSysctl(name, value string) error {
	return t.inside(func() error {
		f, err := os.OpenFile(t.sysctlPath(name), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(value + "\n")
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return fmt.Errorf("set %s to %s: %w", name, value, err)
		}
		return nil
	})
}
