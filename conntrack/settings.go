package conntrack

import (
	"fmt"
	"math"
	"time"
)

// maxTimeout is the longest timeout that the kernel takes as what it is: it
// counts in 32 bits of up to a thousandth of a second, and overflows silently.
const maxTimeout = math.MaxUint32 / 1000 * time.Second

// wholeSeconds returns the number of seconds for the kernel, rounded up.
func wholeSeconds(d time.Duration) (uint32, error) {
	if d <= 0 || d > maxTimeout {
		return 0, fmt.Errorf("a timeout of %s: the kernel takes 1s to %s", d, maxTimeout)
	}
	return uint32((d + time.Second - 1) / time.Second), nil
}
