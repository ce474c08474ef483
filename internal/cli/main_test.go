package cli

import (
	"os"
	"testing"

	"sgc/internal/lab/labtest"
)

func TestMain(m *testing.M) {
	// A test may start this binary as sgc, to kill it or to run two at once.
	if os.Getenv(asSGC) != "" {
		os.Exit(runAsSGC())
	}
	os.Exit(labtest.Main(m))
}
