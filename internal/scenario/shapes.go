package scenario

// shape is what may stand in a kind of block.
type shape struct {
	// label says what the block's label is, "" for a block without one.
	label string
	// optional labels may be left out.
	optional   bool
	attributes []string
	blocks     []string
	// free blocks may hold anything.
	free bool
}

var flowAttributes = []string{"protocol", "from", "to", "reaches", "family", "source", "destination", "port", "reaches_port",
	"source_port", "id", "icmp_type", "icmp_code", "hop_limit", "interval", "count", "size", "sends"}

// shapes is the language: blocks by name, "" for the file itself.
var shapes = map[string]shape{
	"":          {attributes: []string{"title", "speed"}, blocks: []string{"locals", "network", "host", "policy", "step"}},
	"locals":    {free: true},
	"network":   {label: "name of the network", attributes: []string{"mtu"}},
	"host":      {label: "name of the host", attributes: []string{"managed", "forward", "masquerade", "addresses"}, blocks: []string{"interface", "publish", "route"}},
	"interface": {label: "name of the interface", attributes: []string{"network", "addresses"}},
	"publish":   {attributes: []string{"interface", "protocol", "port", "to"}},
	"route":     {attributes: []string{"to", "via"}},
	"policy":    {label: "name of the policy", free: true},
	"step":      {label: "name of the step", attributes: []string{"description"}, blocks: []string{"apply", "destroy", "start", "stop", "wait", "check", "fill", "drain", "expect", "counter", "allowance"}},
	"apply":     {label: "name of a policy", attributes: []string{"flush", "hold"}},
	"destroy":   {attributes: []string{"hold"}},
	"start":     {label: "name of the flow", attributes: flowAttributes},
	"stop":      {label: "name of a flow"},
	"wait":      {label: "time to wait", optional: true, attributes: []string{"flow", "sent", "passed", "over", "real"}},
	"check":     {label: "name of the check", attributes: append([]string{"traffic", "tracked"}, flowAttributes...)},
	"expect":    {label: "name of a flow", attributes: []string{"traffic", "lost", "over", "tracked", "timeout", "sent", "passed", "first_passed", "within"}},
	"counter":   {label: "address of a rule", attributes: []string{"packets", "at_least"}},
	"fill":      {attributes: []string{"leave"}},
	"drain":     {},
	"allowance": {attributes: []string{"available", "exceeded", "exceeded_at_least"}},
}
