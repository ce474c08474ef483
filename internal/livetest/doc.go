// Package livetest tests on the real kernel what a change of policy does to
// live flows: every line of the table in the contract, with flows on which
// both ends keep sending before, during and after the change.
//
// The tests drive sgc's command line and look at nothing of its insides. What
// passes is counted on the far side of sgc's chains, since a socket hides
// segments that were sent again.
package livetest
