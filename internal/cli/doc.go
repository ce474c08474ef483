// Package cli is the command line: one file a command, each from flags to
// options to a call into the packages that do the work to a view, as text for
// people or as JSON for programs.
//
// Data goes to standard output; progress, questions and diagnostics go to
// standard error. Nothing here keeps state between two runs, and everything a
// command sees of the world outside the files and the kernel comes in through
// Streams, so that tests run commands in their own process.
package cli
