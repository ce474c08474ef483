package scenario

import (
	"errors"
	"fmt"

	"sgc/internal/lab"
)

// world is the scenario's hosts and networks, made of network namespaces.
type world struct {
	hosts map[string]*lab.Namespace
	// wires are the namespaces of networks with more than two interfaces, each
	// with a bridge.
	wires []*lab.Namespace
}

// build makes the world. It lives as long as this process, or until close.
func build(s *Scenario, t *Topology) (_ *world, err error) {
	w := &world{hosts: map[string]*lab.Namespace{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build the scenario's network: %w", err), w.close())
		}
	}()
	for _, h := range s.Hosts {
		ns, err := lab.NewNamespace(h.Name)
		if err != nil {
			return nil, err
		}
		w.hosts[h.Name] = ns
		if h.Forward {
			if err := ns.Forward(); err != nil {
				return nil, err
			}
		}
	}
	for _, n := range s.Networks {
		if err := w.join(n, t.on(n.Name)); err != nil {
			return nil, err
		}
	}
	for _, h := range s.Hosts {
		if err := w.route(h, t); err != nil {
			return nil, err
		}
		if len(h.Masquerade)+len(h.Publish) == 0 {
			continue
		}
		nat := lab.NAT{Masquerade: h.Masquerade}
		for _, p := range h.Publish {
			nat.Publish = append(nat.Publish, lab.Published(p))
		}
		if err := w.hosts[h.Name].AddNAT(nat); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// bridgeName is the switch of a network with more than two interfaces.
const bridgeName = "switch"

// join connects the interfaces of a network: two by a wire, more by a switch.
func (w *world) join(n *Network, ends []attached) error {
	if len(ends) == 2 {
		a, b := w.end(ends[0]), w.end(ends[1])
		if err := lab.Connect(a, b); err != nil {
			return err
		}
		return w.setMTU(n, a, b)
	}
	if len(ends) == 0 {
		return nil
	}
	wire, err := lab.NewNamespace("network " + n.Name)
	if err != nil {
		return err
	}
	w.wires = append(w.wires, wire)
	if err := wire.AddBridge(bridgeName, n.MTU); err != nil {
		return err
	}
	for i, e := range ends {
		near, far := w.end(e), lab.End{Namespace: wire, Interface: fmt.Sprintf("port%d", i)}
		if err := lab.Connect(near, far); err != nil {
			return err
		}
		if err := w.setMTU(n, near, far); err != nil {
			return err
		}
		if err := wire.Enslave(far.Interface, bridgeName); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) end(a attached) lab.End {
	return lab.End{Namespace: w.hosts[a.host.Name], Interface: a.iface.Name, Addresses: a.iface.Addresses}
}

func (w *world) setMTU(n *Network, ends ...lab.End) error {
	if n.MTU == 0 {
		return nil
	}
	for _, e := range ends {
		if err := e.Namespace.SetMTU(e.Interface, n.MTU); err != nil {
			return err
		}
	}
	return nil
}

// foundMetric puts routes that the lab found behind those of the file.
const foundMetric = 2048

// route adds the host's routes; those of its own networks are there.
func (w *world) route(h *Host, t *Topology) error {
	for _, r := range t.routes[h] {
		if !r.via.IsValid() {
			continue
		}
		route := lab.Route{Dest: r.dest, Via: r.via, Interface: r.iface.Name}
		if r.found {
			route.Metric = foundMetric
		}
		if err := w.hosts[h.Name].AddRoute(route); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) close() error {
	var errs []error
	for _, ns := range w.hosts {
		errs = append(errs, ns.Close())
	}
	for _, ns := range w.wires {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}
