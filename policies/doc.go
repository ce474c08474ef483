// Package policies is the language of sgc and its meaning.
//
// Load reads HCL and returns a Policy, resolved and validated, or diagnostics:
// all of them, each with its place and a way out. Format lays policy text out.
// Decide says what a policy means for one packet; it is written from the
// language's definition and shares no code with package compile, so that the
// two can be held against each other.
package policies
