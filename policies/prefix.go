package policies

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sgc/internal/flow"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// prefixForm says which texts an attribute takes.
type prefixForm struct {
	// family is the only family allowed; 0 is both.
	family flow.Family
	// other is the attribute for the other family.
	other string
	// addresses allows a plain address, which is a prefix of full length.
	addresses bool
}

// parsePrefix reads a CIDR. canonical is false if it had bits behind its
// length, which are cleared. problem is what is wrong with it, and the way
// out, or "".
func parsePrefix(s string, form prefixForm) (p netip.Prefix, canonical bool, problem string) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, addrErr := netip.ParseAddr(s)
		switch {
		case addrErr == nil && addr.Zone() == "" && form.addresses:
			p = netip.PrefixFrom(addr, addr.BitLen())
		case addrErr == nil && addr.Zone() == "":
			if addr.Is4In6() {
				addr = addr.Unmap()
			}
			return p, false, fmt.Sprintf("%q is an address, not a CIDR: write %q.", s, netip.PrefixFrom(addr, addr.BitLen()))
		default:
			return p, false, prefixProblem(s, form)
		}
	}
	if p.Addr().Is4In6() {
		where := ""
		if form.family == flow.IPv6 && form.other != "" {
			where = " in " + form.other
		}
		// Shorter prefixes hold more than IPv4.
		if p.Bits() < 96 {
			return p, false, fmt.Sprintf("%s is an IPv4 address inside IPv6, which is never on the wire: write the IPv4 prefix%s.", quoteShort(s), where)
		}
		v4 := netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		return p, false, fmt.Sprintf("%s is an IPv4 address inside IPv6, which is never on the wire: write %q%s.", quoteShort(s), v4, where)
	}
	if f := flow.FamilyOf(p.Addr()); form.family != 0 && f != form.family {
		return p, false, fmt.Sprintf("%s is %s: write it in %s.", quoteShort(s), f, form.other)
	}
	m := p.Masked()
	return m, m == p, ""
}

// prefixProblem finds the reason why a text is no prefix.
func prefixProblem(s string, form prefixForm) string {
	example := "10.0.0.0/8"
	if form.family == flow.IPv6 {
		example = "2001:db8::/32"
	}
	addrText, bits, slash := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(addrText)
	switch {
	case strings.Contains(s, "%"):
		return fmt.Sprintf("%s names a zone, which no packet carries: remove what begins with %%.", quoteShort(s))
	case strings.TrimSpace(s) != s:
		return fmt.Sprintf("%s has white space around it; remove it.", quoteShort(s))
	case err == nil && slash:
		return fmt.Sprintf("The length %s is not between 0 and %d.", quoteShort("/"+bits), addr.BitLen())
	case leadingZero(addrText):
		return fmt.Sprintf("%s has a number with a leading zero, which some programs read as octal: remove the zero.", quoteShort(s))
	}
	return fmt.Sprintf("%s is no CIDR, such as %q.", quoteShort(s), example)
}

// leadingZero reports whether an IPv4 address would be one without the zeros
// before its numbers.
func leadingZero(s string) bool {
	parts := strings.Split(s, ".")
	for i, p := range parts {
		if len(p) > 1 {
			parts[i] = strings.TrimLeft(p, "0")
			if parts[i] == "" {
				parts[i] = "0"
			}
		}
	}
	a, err := netip.ParseAddr(strings.Join(parts, "."))
	return err == nil && a.Is4()
}

// prefixes reads a list of CIDRs. The result is in the order of the source.
func (d *decoder) prefixes(name string, form prefixForm) field[[]located] {
	if a := d.in.body.attribute(name); a != nil {
		if list, ok := a.expr.(*literalList); ok {
			return d.bulkPrefixes(a, list, name, form)
		}
	}
	list := d.list(name, "CIDRs")
	f := field[[]located]{set: list.set, broken: list.broken, expr: list.expr, attr: list.attr}
	for n, i := range list.val {
		if i.val.Type() != cty.String {
			d.l.errorIn(i.expr, d.in.ctx, "Wrong type", fmt.Sprintf("%s is a list of CIDRs in quotes, not of %s%s.", name, friendly(i.val), i.which))
			f.broken = true
			continue
		}
		s := i.val.AsString()
		p, canonical, problem := parsePrefix(s, form)
		if problem != "" {
			d.l.errorIn(i.expr, d.in.ctx, "Invalid CIDR", capitalOf(i.which, problem))
			f.broken = true
			continue
		}
		if !canonical {
			d.l.warnAt(i.expr.Range(), "CIDR with host bits", fmt.Sprintf("%s%s is taken as %s; write that.", quoteShort(s), i.which, p))
		}
		f.val = append(f.val, located{prefix: p, in: items(list.val), index: int32(n)})
	}
	return f
}

// capitalOf puts what is known of the place before a sentence about it.
func capitalOf(which, sentence string) string {
	if which == "" {
		return sentence
	}
	return fmt.Sprintf("%s: %s", capital(strings.Trim(which, " ()")), sentence)
}

// bulkPrefixes reads a long list of plain strings: only faults cost more than
// the prefix itself.
func (d *decoder) bulkPrefixes(a *attribute, list *literalList, name string, form prefixForm) field[[]located] {
	f := field[[]located]{set: true, expr: a.expr, attr: a, val: make([]located, 0, len(list.spans))}
	faults := faultCounter{l: d.l}
	for i := range list.spans {
		p, canonical, problem := parsePrefix(list.at(i), form)
		switch {
		case problem != "":
			f.broken = true
			faults.error(list.rangeAt(i), "Invalid CIDR", problem)
			continue
		case !canonical:
			faults.warn(list.rangeAt(i), "CIDR with host bits", fmt.Sprintf("%s is taken as %s; write that.", quoteShort(list.at(i)), p))
		}
		f.val = append(f.val, located{prefix: p, in: list, index: int32(i)})
	}
	faults.finish(list.StartRange(), "in this list")
	return f
}

// located is a prefix and where it stands.
type located struct {
	prefix netip.Prefix
	in     placer
	index  int32
	// sequence numbers the prefixes of several lists together.
	sequence int32
}

func (p *located) rng() hcl.Range { return p.in.rangeAt(int(p.index)) }

// placer is a list that knows where its elements stand: one that was written
// out and parsed, one that was read in bulk, or a file of prefixes.
type placer interface{ rangeAt(i int) hcl.Range }

// items are the elements of a list that the parser read.
type items []item

func (i items) rangeAt(n int) hcl.Range { return i[n].expr.Range() }

// unique sorts prefixes and drops those that stand twice. report gets each of
// those, and the first one.
func unique(prefixes []located, report func(again, first *located)) []netip.Prefix {
	if len(prefixes) == 0 {
		return nil
	}
	for i := range prefixes {
		prefixes[i].sequence = int32(i)
	}
	slices.SortFunc(prefixes, func(a, b located) int {
		// The prefixes are canonical, so this is their Compare, but faster.
		if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.sequence, b.sequence))
	})
	out := make([]netip.Prefix, 0, len(prefixes))
	first := &prefixes[0]
	for i := range prefixes {
		p := &prefixes[i]
		if i > 0 && p.prefix == first.prefix {
			report(p, first)
			continue
		}
		first = p
		out = append(out, p.prefix)
	}
	return out
}

// uniqueOrError is unique for lists where a CIDR that stands twice is a fault,
// as it is in the cloud.
func (d *decoder) uniqueOrError(name string, prefixes []located) []netip.Prefix {
	return unique(prefixes, func(again, first *located) {
		at := again.rng()
		d.l.errorAt(at, "CIDR listed twice", fmt.Sprintf("%s stands twice in %s%s; remove one of the two.", again.prefix, name, d.whereFirst(at, first)))
	})
}

// whereFirst tells where the first of two equal things stands, if that is
// another place.
func (d *decoder) whereFirst(again hcl.Range, first *located) string {
	a, b := d.l.fix(again), d.l.fix(first.rng())
	if a == b {
		return ""
	}
	return fmt.Sprintf(", first at %s:%d:%d", b.Filename, b.Start.Line, b.Start.Column)
}

// faultCounter reports the faults of a long list, and only counts them once
// there are so many that nobody reads on.
type faultCounter struct {
	l                *loader
	errors, warnings int
}

// mostFaults of one kind are reported singly for a list.
const mostFaults = 100

func (c *faultCounter) error(at hcl.Range, summary, detail string) {
	if c.errors++; c.errors <= mostFaults {
		c.l.errorAt(at, summary, detail)
	}
}

func (c *faultCounter) warn(at hcl.Range, summary, detail string) {
	if c.warnings++; c.warnings <= mostFaults {
		c.l.warnAt(at, summary, detail)
	}
}

func (c *faultCounter) finish(at hcl.Range, where string) {
	if n := c.errors - mostFaults; n > 0 {
		c.l.errorAt(at, "More errors of this kind", fmt.Sprintf("%s %s, beside the %d that are shown.", plural(n, "further error"), where, mostFaults))
	}
	if n := c.warnings - mostFaults; n > 0 {
		c.l.warnAt(at, "More warnings of this kind", fmt.Sprintf("%s %s, beside the %d that are shown.", plural(n, "further warning"), where, mostFaults))
	}
}
