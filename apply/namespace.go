package apply

import "os"

// OpenNamespace opens a network namespace by name or by path, as Open does,
// for what is neither in nf_tables nor in conntrack.
func OpenNamespace(netns string) (*os.File, error) { return openNamespace(netns) }
