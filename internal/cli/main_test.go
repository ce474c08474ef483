package cli

import (
	"flag"
	"os"
	"os/signal"
	"runtime"
	"strconv"
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
	runAtOnce(4)
	os.Exit(labtest.Main(m))
}

// runAtOnce lets so many parallel tests run at once if nobody has asked for
// another number and there are fewer processors: most of them play scenarios,
// which wait five times as long as they work.
func runAtOnce(n int) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if asked || runtime.GOMAXPROCS(0) >= n {
		return
	}
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err)
	}
}
