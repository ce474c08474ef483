// Package ruleset describes one nftables table as values: chains, sets, maps,
// rules. It renders a table as nft text and encodes its rules as kernel
// expressions; it talks to no kernel.
//
// A rule is a list of statements. Each statement knows its text (text.go) and
// its expressions (encode.go). The expressions are the ones that the nft tool
// itself makes of that text, dependencies included, so that loading the text
// with nft and committing the expressions over netlink give the same table.
package ruleset
