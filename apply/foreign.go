package apply

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Foreign says, for each family, why conntrack must see every packet: other
// tables do NAT or judge by conntrack. Each reason is a sentence such as
//
//	table ip nat does NAT (chain postrouting)
//
// and stands once for a table, with the first chain that does it. The check
// errs on the side of conntrack: it does not ask whether a chain is reached,
// or whether a rule of an inet table is about one family only.
type Foreign struct {
	IPv4, IPv6 []string
}

// foreignReasons collects reasons without repeating them.
type foreignReasons struct {
	Foreign
	around Surroundings
	needs  needs
	seen   map[string]bool
}

func (f *foreignReasons) add(t *foreignTable, what, chain string) {
	reason := fmt.Sprintf("%s %s", t, what)
	if f.seen[reason] {
		return
	}
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[reason] = true
	f.needs.add(tableKey{t.family, t.name})
	reason += fmt.Sprintf(" (chain %s)", chain)
	if t.family != unix.NFPROTO_IPV6 {
		f.IPv4 = append(f.IPv4, reason)
	}
	if t.family != unix.NFPROTO_IPV4 {
		f.IPv6 = append(f.IPv6, reason)
	}
}

// Attempts to look through the tables of others while they change.
const foreignAttempts = 5

// around looks through the tables of others, which were listed at a generation
// or after it. It returns the last generation at which what was found is true. Of
// tables that change all the time, it adds what came in the meantime.
func (r *reader) around(start uint32, others []*foreignTable) (uint32, error) {
	for attempt := 1; ; attempt++ {
		r.foreign = foreignReasons{}
		for _, t := range others {
			// What is gone by now is told of as changed.
			if err := r.foreignTable(t); err != nil && !errors.Is(err, unix.ENOENT) {
				return 0, fmt.Errorf("%s: %w", t, err)
			}
		}
		c, err := r.watch.until(r.ctx, r.conn, start)
		switch {
		case err != nil:
			return 0, err
		case !c.known || c.own:
			return 0, errInterrupted
		case len(c.others) == 0:
			return c.now, nil
		case attempt == foreignAttempts:
			for _, t := range c.others {
				if happened(t.gained, start) && foreignFamilies[t.family] != "" {
					r.foreign.add(&foreignTable{family: t.family, name: t.name}, t.need, t.chain)
				}
			}
			return c.now, nil
		}
		start = c.now
		if _, others, err = r.tables(); err != nil {
			return 0, err
		}
	}
}

// foreignTable looks through somebody else's table.
func (r *reader) foreignTable(t *foreignTable) error {
	if err := r.foreignRules(t); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	if err := r.foreignSets(t); err != nil {
		return fmt.Errorf("sets: %w", err)
	}
	err := r.conn.dump(r.ctx, unix.NFT_MSG_GETFLOWTABLE, t.family,
		func(m *nlmsg.Message) { m.CString(flowtableTable, t.name) },
		func(_ uint8, b []byte) error { return t.addFlowtable(b) })
	if unlessTorn(err) != nil {
		return fmt.Errorf("flowtables: %w", err)
	}
	r.foreign.around.tables = append(r.foreign.around.tables, t)
	return nil
}

func (r *reader) foreignRules(t *foreignTable) error {
	for _, c := range t.chains {
		if t.isIP() && t.doesNAT(c.name) {
			r.foreign.needs.natChain(tableKey{t.family, t.name})
		}
	}
	return unlessTorn(r.conn.dump(r.ctx, unix.NFT_MSG_GETRULE, t.family,
		func(m *nlmsg.Message) { m.CString(unix.NFTA_RULE_TABLE, t.name) },
		func(family uint8, b []byte) error {
			if family != t.family {
				return nil
			}
			if err := t.addRule(b); err != nil {
				return err
			}
			if !t.isIP() {
				return nil
			}
			chain, needs, err := foreignNeeds(b)
			if err != nil {
				return err
			}
			if t.doesNAT(chain) {
				needs = doesNAT
			}
			if needs != "" {
				r.foreign.add(t, needs, chain)
			}
			return nil
		}))
}

// foreignSets reads those sets and maps that the rules ask for interfaces and
// verdicts.
func (r *reader) foreignSets(t *foreignTable) error {
	if len(t.sets) == 0 {
		return nil
	}
	var wanted []string
	err := r.conn.dump(r.ctx, unix.NFT_MSG_GETSET, t.family,
		func(m *nlmsg.Message) { m.CString(unix.NFTA_SET_TABLE, t.name) },
		func(_ uint8, b []byte) error {
			s, err := decodeSet(b)
			if err == nil && t.defineSet(s) {
				wanted = append(wanted, s.Name)
			}
			return err
		})
	if unlessTorn(err) != nil {
		return err
	}
	for _, name := range wanted {
		err := r.conn.dump(r.ctx, unix.NFT_MSG_GETSETELEM, t.family,
			func(m *nlmsg.Message) {
				m.CString(unix.NFTA_SET_ELEM_LIST_TABLE, t.name)
				m.CString(unix.NFTA_SET_ELEM_LIST_SET, name)
			},
			func(_ uint8, b []byte) error { return t.sets[name].addElements(b) })
		if unlessTorn(err) != nil {
			return fmt.Errorf("elements of set %s: %w", name, err)
		}
	}
	return nil
}

// What a rule may need of conntrack, in the words of the reasons.
const (
	doesNAT      = "does NAT"
	judges       = "judges by conntrack state"
	marksFlows   = "keeps marks in conntrack"
	offloads     = "offloads flows"
	proxiesSYN   = "proxies TCP handshakes"
	redirects    = "redirects to a local proxy"
	countsFlows  = "counts connections"
	setsZones    = "sets conntrack zones"
	needsNothing = ""
)

// foreignNeeds reads one dumped rule.
func foreignNeeds(b []byte) (chain, needs string, err error) {
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_RULE_CHAIN:
			chain = a.CString()
		case unix.NFTA_RULE_EXPRESSIONS:
			list := nlmsg.Walk(a.Data)
			for list.Next() && needs == needsNothing {
				needs, err = expressionNeeds(list.Data)
				if err != nil {
					return chain, needs, err
				}
			}
			if list.Err != nil {
				return chain, needs, list.Err
			}
		}
	}
	return chain, needs, a.Err
}

func expressionNeeds(b []byte) (string, error) {
	name, data, err := splitExpression(b)
	if err != nil {
		return "", err
	}
	switch string(name) {
	case "nat", "masq", "redir":
		return doesNAT, nil
	case "tproxy":
		return redirects, nil
	case "ct":
		return conntrackNeeds(data)
	case "connlimit":
		return countsFlows, nil
	case "flow_offload":
		return offloads, nil
	case "synproxy":
		return proxiesSYN, nil
	case "match", "target":
		return extensionNeeds(data)
	}
	return needsNothing, nil
}

// conntrackNeeds reads a "ct" expression. To set a helper or an event mask needs
// nothing of packets that are not tracked. A packet that was given a zone is tracked
// there, whatever else says notrack.
//
// Source: Linux net/netfilter/nft_ct.c, nft_ct_set_zone_eval and nft_notrack_eval.
func conntrackNeeds(b []byte) (string, error) {
	var key uint32
	reads := false
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_CT_KEY:
			key = a.Uint32()
		case unix.NFTA_CT_DREG:
			reads = true
		}
	}
	switch {
	case reads:
		return judges, a.Err
	case key == unix.NFT_CT_MARK, key == unix.NFT_CT_LABELS, key == unix.NFT_CT_SECMARK:
		return marksFlows, a.Err
	case key == unix.NFT_CT_ZONE:
		return setsZones, a.Err
	}
	return needsNothing, a.Err
}

// extensions are the matches and targets of iptables that need conntrack.
//
// Source: iptables-extensions(8).
var extensions = map[string]string{
	"conntrack": judges, "state": judges, "connbytes": judges, "connlabel": marksFlows, "connmark": judges,
	"connlimit": countsFlows, "helper": judges, "cluster": judges,
	"SNAT": doesNAT, "DNAT": doesNAT, "MASQUERADE": doesNAT, "REDIRECT": doesNAT, "NETMAP": doesNAT,
	"CONNMARK": marksFlows, "CONNSECMARK": marksFlows, "SYNPROXY": proxiesSYN, "TPROXY": redirects,
}

// extensionNeeds reads a "match" or "target" expression, which iptables-nft
// makes of extensions that nf_tables has no words for.
func extensionNeeds(b []byte) (string, error) {
	a := nlmsg.Walk(b)
	for a.Next() {
		// NFTA_MATCH_NAME and NFTA_TARGET_NAME have the same number.
		if a.Type == unix.NFTA_MATCH_NAME {
			if needs := extensions[a.CString()]; needs != "" {
				return needs, a.Err
			}
		}
	}
	if _, zones, err := targetCT(b); zones || err != nil {
		return setsZones, err
	}
	return needsNothing, a.Err
}

// addLegacy adds the tables of the iptables before nf_tables. Which rules they
// hold is not looked into: that such a table is loaded is reason enough. The
// kernel loads one for a namespace when somebody there first asks for it.
func (k *Kernel) addLegacy(f *foreignReasons) (Foreign, error) {
	err := k.inside(func() error {
		for _, family := range []struct {
			file    string
			command string
			reasons *[]string
		}{
			{"ip_tables_names", "iptables", &f.IPv4},
			{"ip6_tables_names", "ip6tables", &f.IPv6},
		} {
			names, err := readLines("/proc/thread-self/net/" + family.file)
			if err != nil {
				return fmt.Errorf("list the tables of legacy %s: %w", family.command, err)
			}
			found := len(*family.reasons)
			for _, name := range names {
				switch name {
				case "nat":
					*family.reasons = append(*family.reasons, fmt.Sprintf("legacy %s table nat is loaded and may do NAT", family.command))
				case "raw":
					f.around.LegacyRaw = append(f.around.LegacyRaw, fmt.Sprintf("legacy %s table raw", family.command))
					*family.reasons = append(*family.reasons, fmt.Sprintf("legacy %s table raw is loaded and may set conntrack zones", family.command))
				case "filter", "mangle", "security":
					if name == "filter" {
						f.around.Legacy = append(f.around.Legacy, fmt.Sprintf("legacy %s table filter", family.command))
					}
					*family.reasons = append(*family.reasons, fmt.Sprintf("legacy %s table %s is loaded and may judge by conntrack state", family.command, name))
				}
			}
			if len(*family.reasons) > found {
				f.needs.legacy(family.reasons == &f.IPv4)
			}
		}
		return nil
	})
	return f.Foreign, err
}

// readLines reads a file of /proc; one that is not there has no lines.
func readLines(name string) ([]string, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	var lines []string
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if line := strings.TrimSpace(scan.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, scan.Err()
}
