package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// AddBridge makes a switch in the namespace, which forwards at once and to
// everybody: it neither learns a spanning tree nor listens for multicast
// groups. mtu is 0 for the kernel's default.
func (n *Namespace) AddBridge(name string, mtu int) error {
	snoop := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}
	if err := n.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s in %s: %w", name, n.name, err)
	}
	if err := n.links.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set bridge %s in %s up: %w", name, n.name, err)
	}
	return nil
}

// Enslave makes an interface a port of a bridge.
func (n *Namespace) Enslave(iface, bridge string) error {
	link, err := n.link(iface)
	if err != nil {
		return err
	}
	master, err := n.link(bridge)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetMaster(link, master); err != nil {
		return fmt.Errorf("make %s a port of bridge %s in %s: %w", iface, bridge, n.name, err)
	}
	return nil
}
