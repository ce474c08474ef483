// Package kerneltest holds the tests that ask the real kernel whether a policy
// that was compiled and applied does to packets what policies.Judge says. It
// has no code of its own.
package kerneltest
