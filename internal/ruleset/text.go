package ruleset

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteText writes an nft script that replaces the table by this one in a
// single transaction, whether it is there or not. Equal tables give equal
// bytes.
func (t *Table) WriteText(w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<16)
	fmt.Fprintf(b, "table inet %s\ndelete table inet %s\ntable inet %s {\n", t.Name, t.Name, t.Name)
	if t.Comment != "" {
		fmt.Fprintf(b, "\tcomment %q\n", t.Comment)
	}
	gap := t.Comment != ""
	for _, o := range t.Timeouts {
		if gap {
			fmt.Fprintln(b)
		}
		gap = true
		o.writeText(b)
	}
	for _, s := range t.Sets {
		if gap {
			fmt.Fprintln(b)
		}
		gap = true
		s.writeText(b)
	}
	for _, c := range t.Chains {
		if gap {
			fmt.Fprintln(b)
		}
		gap = true
		c.writeText(b)
	}
	fmt.Fprintln(b, "}")
	return b.Flush()
}

func (s *Set) writeText(b *bufio.Writer) {
	kind, of := "set", ""
	if s.Map {
		kind, of = "map", " : verdict"
	}
	names := make([]string, len(s.Key))
	how := "type"
	for i, t := range s.Key {
		names[i] = t.Name()
		if typeInfos[t].quoted != 0 {
			how = "typeof"
		}
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\t%s %s%s\n", kind, s.Name, how, strings.Join(names, " . "), of)
	if s.Size != 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.Size)
	}
	switch {
	case s.Dynamic:
		fmt.Fprintf(b, "\t\tflags dynamic,timeout\n\t\ttimeout %s\n", durationText(s.Timeout))
	case s.Timed && s.Interval:
		fmt.Fprintf(b, "\t\tflags interval,timeout\n")
	case s.Timed:
		fmt.Fprintf(b, "\t\tflags timeout\n")
	case s.Interval:
		fmt.Fprintf(b, "\t\tflags interval\n")
	}
	if s.Comment != "" {
		fmt.Fprintf(b, "\t\tcomment %q\n", s.Comment)
	}
	if len(s.Elements) > 0 {
		fmt.Fprintf(b, "\t\telements = {\n")
		for _, e := range s.Elements {
			fmt.Fprintf(b, "\t\t\t%s,\n", s.ElementText(e))
		}
		fmt.Fprintf(b, "\t\t}\n")
	}
	fmt.Fprintf(b, "\t}\n")
}

// ElementText returns an element as nft writes it, "22 : goto web.ingress.ssh".
func (s *Set) ElementText(e Element) string {
	text := s.keyText(e.First, e.Last)
	if e.Verdict != nil {
		text += " : " + e.Verdict.text()
	}
	return text
}

// TimedText returns a timed element as nft writes it.
func (s *Set) TimedText(e TimedElement) string {
	text := s.keyText(e.First, e.Last)
	if e.Comment != "" {
		text += fmt.Sprintf(" comment %q", e.Comment)
	}
	return text
}

func (c *Chain) writeText(b *bufio.Writer) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Comment != "" {
		fmt.Fprintf(b, "\t\tcomment %q\n", c.Comment)
	}
	if c.Hook != nil {
		fmt.Fprintf(b, "\t\ttype filter hook %s priority %d; policy accept;\n", c.Hook.Point, c.Hook.Priority)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", r.Text())
	}
	fmt.Fprintf(b, "\t}\n")
}

func (p HookPoint) String() string {
	switch p {
	case Prerouting:
		return "prerouting"
	case Output:
		return "output"
	case Postrouting:
		return "postrouting"
	}
	return fmt.Sprintf("hook %d", uint32(p))
}

// Text returns the rule as nft writes it, in one line.
func (r Rule) Text() string {
	parts := make([]string, 0, len(r.Statements)+1)
	for _, s := range r.Statements {
		parts = append(parts, statementText(s))
	}
	if r.Comment != "" {
		parts = append(parts, fmt.Sprintf("comment %q", r.Comment))
	}
	return strings.Join(parts, " ")
}

func statementText(s Statement) string {
	switch s := s.(type) {
	case Match:
		return matchText(s)
	case MatchPrefix:
		return s.Field.info().text + " " + prefixText(s)
	case MatchRange:
		info := s.Field.info()
		return info.text + " " + info.typ.rangeText(s.First, s.Last)
	case MatchState:
		return "ct state " + s.State.String()
	case MatchFlags:
		op := "=="
		if s.Negate {
			op = "!="
		}
		return fmt.Sprintf("tcp flags & %s %s %s", flagsText(s.Mask), op, flagsText(s.Value))
	case MatchUDPPorts:
		return fmt.Sprintf("udp sport %d udp dport %d", s.Source, s.Dest)
	case MatchEndsHere:
		if s.Negate {
			return "fib daddr type unicast"
		}
		return "fib daddr type != unicast"
	case MatchForwarded:
		if s.Negate {
			return "iif 0"
		}
		return "iif != 0"
	case MatchDirection:
		if s.Reply {
			return "ct direction reply"
		}
		return "ct direction original"
	case SetTimeout:
		return fmt.Sprintf("ct timeout set %q", s.Object)
	case Lookup:
		if s.Negate {
			return fieldsText(s.Fields) + " != @" + s.Set
		}
		return fieldsText(s.Fields) + " @" + s.Set
	case VerdictMap:
		return fieldsText(s.Fields) + " vmap @" + s.Map
	case Update:
		return fmt.Sprintf("update @%s { %s timeout %s }", s.Set, fieldsText(s.Fields), durationText(s.Timeout))
	case Counter:
		return "counter"
	case Limit:
		return fmt.Sprintf("limit rate %d/%s burst %d packets", s.Rate, limitUnits[s.Unit].text, s.Burst)
	case Log:
		if s.Group != nil {
			return fmt.Sprintf("log prefix %q group %d", s.Prefix, *s.Group)
		}
		return fmt.Sprintf("log prefix %q", s.Prefix)
	case Notrack:
		return "notrack"
	case Verdict:
		return s.text()
	}
	panic(fmt.Sprintf("ruleset: unknown statement %T", s))
}

func matchText(m Match) string {
	info := m.Field.info()
	op := " "
	if m.Negate {
		op = " != "
	}
	value := info.typ.text(m.Value)
	if info.typ == IfName && len(m.Value) < info.size {
		value = `"` + m.Value + `*"`
	}
	return info.text + op + value
}

func prefixText(m MatchPrefix) string {
	if m.Prefix.IsSingleIP() {
		return m.Prefix.Addr().String()
	}
	return m.Prefix.String()
}

func fieldsText(fields []Field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.info().text
	}
	return strings.Join(names, " . ")
}

func (s CtState) String() string {
	switch s {
	case CtInvalid:
		return "invalid"
	case CtEstablished:
		return "established"
	case CtRelated:
		return "related"
	case CtNew:
		return "new"
	case CtUntracked:
		return "untracked"
	}
	return fmt.Sprintf("0x%x", uint32(s))
}

func flagsText(flags uint8) string {
	var names []string
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"} {
		if flags&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 1 {
		return names[0]
	}
	return "(" + strings.Join(names, "|") + ")"
}

func (v Verdict) text() string {
	switch v.Kind {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Return:
		return "return"
	case Jump:
		return "jump " + v.Chain
	case Goto:
		return "goto " + v.Chain
	}
	panic(fmt.Sprintf("ruleset: unknown verdict %d", v.Kind))
}

// durationText writes whole seconds the way nft does, "1h10m".
func durationText(d time.Duration) string {
	s := int64(d / time.Second)
	text := ""
	for _, unit := range []struct {
		name    string
		seconds int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}} {
		if n := s / unit.seconds; n > 0 {
			text += fmt.Sprint(n, unit.name)
			s %= unit.seconds
		}
	}
	return text
}
