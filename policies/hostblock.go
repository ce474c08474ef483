package policies

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// host decodes the host block, of which there is one at most.
func (l *loader) host(blocks []declared) Host {
	var out Host
	var first *hcl.Range
	for _, b := range blocks {
		h := l.hostBlock(b)
		if first != nil {
			at := l.fix(*first)
			l.errorAt(b.header, "Second host block", fmt.Sprintf("The host is described at %s:%d already; put both blocks into one.", at.Filename, at.Start.Line))
			continue
		}
		first, out = &b.header, h
	}
	return out
}

func (l *loader) hostBlock(b declared) Host {
	d := l.decodeTop(b)
	out := Host{Pos: l.pos(b.header)}
	out.DNSResolvers = d.addresses("dns_resolvers", "every DNS packet of the family passes unfiltered")
	out.Exempt = d.addresses("exempt", "nothing of the family is filtered")
	out.ICMPErrorsByRules = d.choice("icmp_errors", "related", "rules").val == "rules"
	in := d.only("conntrack")
	if in == nil {
		return out
	}
	d = l.decode(in, rootSchema.block("host").block(in.kind))
	out.Conntrack = &HostConntrack{
		Max:            d.number("max", 1, math.MaxInt32).val,
		ICMPTimeout:    d.duration("icmp_timeout", time.Second, maxIdle).val,
		GenericTimeout: d.duration("generic_timeout", time.Second, maxIdle).val,
		Pos:            l.pos(in.header),
	}
	return out
}

// addresses reads a list of addresses or CIDRs that are exempt from filtering.
// everything is what a prefix of length 0 would mean.
func (d *decoder) addresses(name, everything string) []netip.Prefix {
	f := d.prefixes(name, prefixForm{addresses: true})
	for i := range f.val {
		if p := &f.val[i]; p.prefix.Bits() == 0 {
			d.l.warnAt(p.rng(), "Everything is exempt", fmt.Sprintf("With %s in %s, %s. Name the single addresses.", p.prefix, name, everything))
		}
	}
	return d.uniqueOrError(name, f.val)
}
