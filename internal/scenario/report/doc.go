// Package report draws what a run of a scenario recorded: a lane for each flow,
// a mark for each packet, and lines where the policy changed.
//
// SVG makes a picture, HTML a page of several with all that is known of each
// expectation, and Strips the same lanes as text while the scenario runs. All
// are pure functions of what they are given: equal records give equal bytes.
// The pictures need nothing but themselves: no font, no script, no network.
//
// Every kind of mark has a colour and a shape of its own, so that a picture can be
// read in black and white and by people who see no colours.
package report
