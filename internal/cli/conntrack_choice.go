package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// choice is what the flags of list and flush choose.
type choice struct {
	filter conntrack.Filter
	// rules are the addresses of those that are looked up in the policy.
	rules []string
	// flags are those that were given, as they were; none choose everything.
	flags []string
}

// readChoice reads the flags that choose. Several of one name mean any of them.
func readChoice(c *cli.Context) (choice, error) {
	var out choice
	f := &out.filter
	take := func(list *[]string) func(string) error {
		return func(text string) error {
			*list = append(*list, text)
			return nil
		}
	}
	for _, flag := range []struct {
		name string
		read func(string) error
	}{
		{"interface", take(&f.Interfaces)}, {"group", take(&f.Groups)}, {"rule", take(&out.rules)},
		{"class", out.readClass}, {"protocol", out.readProtocol}, {"cidr", out.readPeer}, {"port", out.readPorts},
	} {
		for _, text := range c.StringSlice(flag.name) {
			if text == "" {
				return out, fmt.Errorf("the flag --%s is empty", flag.name)
			}
			if err := flag.read(text); err != nil {
				return out, err
			}
			out.flags = append(out.flags, "--"+flag.name+" "+text)
		}
	}
	if f.Revoked = c.Bool("revoked"); f.Revoked {
		out.flags = append(out.flags, "--revoked")
		if len(f.Groups)+len(out.rules) > 0 {
			return out, errors.New("a flow that no rule allows any more is of no group and no rule: leave out --revoked, or --group and --rule")
		}
	}
	return out, nil
}

func (c *choice) readClass(text string) error {
	classes := []conntrack.Class{conntrack.ClassTracked, conntrack.ClassOpen, conntrack.ClassExempt}
	var names []string
	for _, class := range classes {
		if class.String() == text {
			c.filter.Classes = append(c.filter.Classes, class)
			return nil
		}
		names = append(names, class.String())
	}
	return fmt.Errorf("no flow has the class %q; it is one of %s.%s", text, strings.Join(names, ", "), meant(text, names))
}

func (c *choice) readProtocol(text string) error {
	p, err := flow.ParseProtocol(text)
	if text == "-1" || text == "all" {
		return errors.New("the flag --protocol takes a protocol; for all of them, leave it out")
	}
	if err != nil {
		return fmt.Errorf("the flag --protocol: %w", err)
	}
	c.filter.Protocols = append(c.filter.Protocols, p)
	return nil
}

func (c *choice) readPeer(text string) error {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		c.filter.Peers = append(c.filter.Peers, netip.PrefixFrom(a, a.BitLen()))
		return nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("the flag --cidr: %q is neither an address nor a CIDR, such as 198.51.100.0/24", text)
	}
	c.filter.Peers = append(c.filter.Peers, p.Masked())
	return nil
}

func (c *choice) readPorts(text string) error {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	to, lastErr := strconv.ParseUint(last, 10, 16)
	if err != nil || lastErr != nil || from > to {
		return fmt.Errorf("the flag --port: %q is neither a port nor a range of ports, such as 8000-8099", text)
	}
	c.filter.Ports = append(c.filter.Ports, flow.PortRange{First: uint16(from), Last: uint16(to)})
	return nil
}

// resolve looks up in the policy what the flags name, so that a misspelt name
// is no choice of nothing.
func (c *choice) resolve(p *policies.Policy) error {
	for _, name := range c.filter.Interfaces {
		if governs(p, name) {
			continue
		}
		var names []string
		for _, i := range p.Interfaces {
			names = append(names, i.Name)
		}
		return fmt.Errorf("the policy governs no interface %q: it has blocks for %s.%s", name, someNames(names), meant(name, names))
	}
	for _, name := range c.filter.Groups {
		if p.Group(name) != nil {
			continue
		}
		var names []string
		for _, g := range p.Groups {
			if g.Address() == name {
				return fmt.Errorf("the flag --group takes the name of the group alone: %s", g.Name)
			}
			names = append(names, g.Name)
		}
		return fmt.Errorf("the policy has no security group %q.%s", name, meant(name, names))
	}
	for _, address := range c.rules {
		r, err := ruleAt(p, address)
		if err != nil {
			return err
		}
		c.filter.Rules = append(c.filter.Rules, r)
	}
	return nil
}

// ruleAt returns the policy's rule of that address.
func ruleAt(p *policies.Policy, address string) (*policies.Rule, error) {
	var addresses []string
	for _, g := range p.Groups {
		for _, r := range g.Rules {
			if r.Address() == address {
				return r, nil
			}
			addresses = append(addresses, r.Address())
		}
	}
	if whole := "security_group." + address; slices.Contains(addresses, whole) {
		return nil, fmt.Errorf("the policy has no rule %s. Did you mean %q?", address, whole)
	}
	return nil, fmt.Errorf("the policy has no rule %s.%s", address, meant(address, addresses))
}

// governs reports whether the policy may govern an interface of that name, or one
// that begins with what stands before a "*".
func governs(p *policies.Policy, name string) bool {
	stem, wildcard := strings.CutSuffix(name, "*")
	if !wildcard {
		return name != policies.Loopback && p.Interface(name) != nil
	}
	return slices.ContainsFunc(p.Interfaces, func(i *policies.Interface) bool {
		block, _ := strings.CutSuffix(i.Name, "*")
		return strings.HasPrefix(block, stem) || block != i.Name && strings.HasPrefix(stem, block)
	})
}

// meant asks whether a name was meant, or is "".
func meant(word string, names []string) string {
	if n := nearest(word, names); n != "" {
		return fmt.Sprintf(" Did you mean %q?", n)
	}
	return ""
}
