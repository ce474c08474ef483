package nflog

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRefusalsOfTheKernelAreExplained(t *testing.T) {
	t.Parallel()
	var l Conn
	for _, tt := range []struct {
		errno unix.Errno
		want  error
	}{
		{unix.EBUSY, ErrTaken},
		{unix.EINVAL, ErrUnsupported},
		{unix.EOPNOTSUPP, ErrUnsupported},
		{unix.ENOMEM, unix.ENOMEM},
	} {
		if err := l.explainBind(1, tt.errno); !errors.Is(err, tt.want) {
			t.Errorf("%v: got %v", tt.errno, err)
		}
	}
	if err := explain(unix.EPROTONOSUPPORT); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no netfilter netlink: got %v", err)
	}
	if err := explain(unix.EPERM); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "root") {
		t.Errorf("no right: got %v", err)
	}
}
