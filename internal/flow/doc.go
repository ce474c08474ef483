// Package flow holds the words that every other package speaks: protocols,
// port ranges, address ranges, packets and their direction. It imports nothing
// of sgc and knows neither HCL nor netlink.
package flow
