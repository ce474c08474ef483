package cli

import (
	"os"
	"os/signal"
	"syscall"
	"testing"

	"sgc/internal/lab/labtest"
)

func TestMain(m *testing.M) {
	// A test may start this binary as sgc, to kill it or to run two at once.
	if os.Getenv(asSGC) != "" {
		os.Exit(runAsSGC())
	}
	// Where the tests are run by nohup, so would be what they start: it does not
	// hear of hangups. A signal that is waited for is not ignored by children.
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	os.Exit(labtest.Main(m))
}
