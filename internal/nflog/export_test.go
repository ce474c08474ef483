package nflog

// What the external tests need, which import the lab, which imports nflog.
var (
	Parse       = parse
	ParsePrefix = parsePrefix
)
