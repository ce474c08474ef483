// Package apply is the kernel's nf_tables: it reads the live table, compares it
// with the wanted one, and commits exactly the difference in one transaction.
//
//	k, err := apply.Open("")                       // the namespace of the process
//	have, err := k.Snapshot(ctx, nil)              // table inet sgc at one generation
//	delta, err := apply.Diff(have, want)           // what differs, and the messages that mend it
//	err = k.Commit(ctx, delta)                     // all of it or nothing, or ErrChanged
//
// A snapshot keeps rules as the raw attributes of the kernel's dump, and Diff
// compares them in canonical form (canon.go) with the encoded wanted ones: what
// this package does not know is a difference, never overlooked. Sets are
// compared by their declaration and, but for dynamic sets, element by element.
//
// The order of a transaction is that of emit in emit.go: everything that goes
// goes first, references before what they refer to; then everything that comes
// comes, the other way round. What cannot change in place is made anew with all
// that refers to it. A rule that comes is inserted before the next rule that
// stays.
//
// The package also holds what is remembered between two commands, the state
// directory with its lock (Dir). It knows nothing of policies: a record holds
// one as bytes.
package apply
