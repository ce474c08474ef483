package lab

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// membarrierGlobal waits for a grace period of the kernel's RCU, during which
	// every processor leaves the packets that it is at.
	//
	// Source: Linux include/uapi/linux/membarrier.h, MEMBARRIER_CMD_GLOBAL.
	membarrierGlobal = 1
	// settleOtherwise is for kernels that do not tell.
	settleOtherwise = 100 * time.Millisecond
)

// Settle returns when no packet is in the midst of rules any more that were
// replaced before: a commit does not wait for packets that another processor is
// just judging, however long that one stands still.
func Settle() error {
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.EPERM):
		time.Sleep(settleOtherwise)
		return nil
	}
	return fmt.Errorf("wait for the packets that are being judged: %w", errno)
}
