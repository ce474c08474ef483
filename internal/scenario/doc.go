// Package scenario plays experiments with real packets in private network
// namespaces: hosts, one of them managed by sgc, policies, and steps that apply
// them while flows run, each with what is expected to become of the flows.
//
// Load reads a scenario from HCL, with all of its faults at once. Start plays
// it: every packet that a flow sends is recorded (Timeline), and each step's
// expectations are held against the record, the host's conntrack and the
// counters of its rules.
//
// The package is a witness, like package lab on which it stands: it neither
// compiles a policy nor talks to nf_tables. What applies a policy is given to it
// (Enforcer), and is what the commands of sgc use.
package scenario
