package policies

import (
	"fmt"
	"math/big"
	"net"
	"net/netip"

	"github.com/apparentlymart/go-cidr/cidr"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// The functions of this file are the only place where addresses are net.IP:
// the arithmetic is the one that Terraform uses, so that a definition carried
// over by hand means the same.

var cidrParam = function.Parameter{Name: "prefix", Type: cty.String}

// cidrHostFunc is cidrhost(prefix, number): an address by its number in the
// prefix; negative numbers count from the end.
var cidrHostFunc = function.New(&function.Spec{
	Params: []function.Parameter{cidrParam, {Name: "hostnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []value, _ cty.Type) (value, error) {
		base, err := network(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		n, err := wholeNumber(args[1], 1)
		if err != nil {
			return cty.NilVal, err
		}
		ip, err := cidr.HostBig(base, n)
		if err != nil {
			return cty.NilVal, function.NewArgErrorf(1, "%s", err)
		}
		return cty.StringVal(ip.String()), nil
	},
})

// cidrNetmaskFunc is cidrnetmask(prefix), for IPv4 alone.
var cidrNetmaskFunc = function.New(&function.Spec{
	Params: []function.Parameter{cidrParam},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []value, _ cty.Type) (value, error) {
		base, err := network(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		if len(base.Mask) != net.IPv4len {
			return cty.NilVal, function.NewArgErrorf(0, "IPv6 prefixes have no netmask")
		}
		return cty.StringVal(net.IP(base.Mask).String()), nil
	},
})

// cidrSubnetFunc is cidrsubnet(prefix, newbits, number).
var cidrSubnetFunc = function.New(&function.Spec{
	Params: []function.Parameter{cidrParam, {Name: "newbits", Type: cty.Number}, {Name: "netnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []value, _ cty.Type) (value, error) {
		base, err := network(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		bits, err := newBits(base, args[1], 1)
		if err != nil {
			return cty.NilVal, err
		}
		n, err := wholeNumber(args[2], 2)
		if err != nil {
			return cty.NilVal, err
		}
		if n.Sign() < 0 {
			return cty.NilVal, function.NewArgErrorf(2, "the number of a subnet cannot be negative")
		}
		subnet, err := cidr.SubnetBig(base, bits, n)
		if err != nil {
			return cty.NilVal, function.NewArgErrorf(2, "%s", err)
		}
		return cty.StringVal(subnet.String()), nil
	},
})

// cidrSubnetsFunc is cidrsubnets(prefix, newbits...): subnets one after the
// other.
var cidrSubnetsFunc = function.New(&function.Spec{
	Params:   []function.Parameter{cidrParam},
	VarParam: &function.Parameter{Name: "newbits", Type: cty.Number},
	Type:     function.StaticReturnType(cty.List(cty.String)),
	Impl: func(args []value, _ cty.Type) (value, error) {
		base, err := network(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		if len(args) == 1 {
			return cty.ListValEmpty(cty.String), nil
		}
		ones, _ := base.Mask.Size()
		var current *net.IPNet
		var out []value
		for i, arg := range args[1:] {
			bits, err := newBits(base, arg, i+1)
			if err != nil {
				return cty.NilVal, err
			}
			if bits < 1 {
				return cty.NilVal, function.NewArgErrorf(i+1, "a subnet must be at least one bit longer")
			}
			var next *net.IPNet
			wrapped := false
			if current == nil {
				next, err = cidr.Subnet(base, bits, 0)
				if err != nil {
					return cty.NilVal, function.NewArgErrorf(i+1, "%s", err)
				}
			} else {
				next, wrapped = cidr.NextSubnet(current, ones+bits)
			}
			if wrapped || !base.Contains(next.IP) {
				return cty.NilVal, function.NewArgErrorf(i+1, "not enough room is left in %s for a subnet of /%d", base, ones+bits)
			}
			current = next
			out = append(out, cty.StringVal(next.String()))
		}
		return cty.ListVal(out), nil
	},
})

// network reads a prefix as strictly as the rest of the language does.
func network(v value) (*net.IPNet, error) {
	p, err := netip.ParsePrefix(v.AsString())
	if err != nil {
		return nil, function.NewArgErrorf(0, "%q is no CIDR, such as 10.0.0.0/8", v.AsString())
	}
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, nil
}

// newBits reads the number of bits by which a subnet is longer than base.
func newBits(base *net.IPNet, v value, arg int) (int, error) {
	n, err := wholeNumber(v, arg)
	if err != nil {
		return 0, err
	}
	ones, size := base.Mask.Size()
	if !n.IsInt64() || n.Sign() < 0 || n.Int64() > int64(size-ones) {
		return 0, function.NewArgErrorf(arg, "a prefix of %s cannot be made %s bits longer", base, n)
	}
	return int(n.Int64()), nil
}

// wholeNumber returns a number that has no fraction.
func wholeNumber(v value, arg int) (*big.Int, error) {
	f := v.AsBigFloat()
	if f.IsInf() || !f.IsInt() || f.MantExp(nil) > 256 {
		return nil, function.NewArgError(arg, fmt.Errorf("a whole number is needed, not %s", f.Text('g', 10)))
	}
	n, _ := f.Int(nil)
	return n, nil
}
