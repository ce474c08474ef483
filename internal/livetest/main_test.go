package livetest

import (
	"context"
	"os"
	"testing"

	"sgc/internal/cli"
	"sgc/internal/lab/labtest"
)

// asSGC makes the test binary behave as sgc, so that a test can kill it.
const asSGC = "SGC_TEST_RUN_AS_SGC"

func TestMain(m *testing.M) {
	if os.Getenv(asSGC) != "" {
		os.Exit(cli.Run(context.Background(), os.Args, cli.Standard()))
	}
	os.Exit(labtest.Main(m))
}
