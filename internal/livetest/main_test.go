package livetest

import (
	"context"
	"flag"
	"os"
	"runtime"
	"strconv"
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
	// Most of a test is waiting for packets, so that more of them fit in than
	// there are processors. A flag on the command line comes later, and counts.
	if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	os.Exit(labtest.Main(m))
}
