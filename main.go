// Command sgc gives a Linux host the semantics of cloud security groups.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"sgc/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal lets a command end in order, the second one ends it.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, os.Args, cli.Standard()))
}
