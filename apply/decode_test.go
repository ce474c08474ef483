package apply

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// list puts marshalled expressions into one list.
func list(t testing.TB, exprs ...expr.Any) []byte {
	var m nlmsg.Message
	for _, e := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			t.Fatal(err)
		}
		m.Bytes(unix.NFTA_LIST_ELEM, b)
	}
	return m.Buf
}

func formOf(t testing.TB, b []byte) string {
	f, _, err := canonical(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCanonicalFormsOfTheSameAreEqual(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		a, b []expr.Any
		same bool
	}{
		{"registers of 4 and 16 bytes", []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 12}}, []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 2}}, true},
		{"registers between", []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 9}}, []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}}, false},
		{"set ids", []expr.Any{&expr.Lookup{SetName: "s", SetID: 7, SourceRegister: 1}}, []expr.Any{&expr.Lookup{SetName: "s", SourceRegister: 8}}, true},
		{"set names", []expr.Any{&expr.Lookup{SetName: "s", SourceRegister: 1}}, []expr.Any{&expr.Lookup{SetName: "t", SourceRegister: 1}}, false},
		{"negation", []expr.Any{&expr.Lookup{SetName: "s", SourceRegister: 1, Invert: true}}, []expr.Any{&expr.Lookup{SetName: "s", SourceRegister: 1}}, false},
		{"values of counters", []expr.Any{&expr.Counter{Bytes: 1, Packets: 2}}, []expr.Any{&expr.Counter{}}, true},
		{"a counter or none", []expr.Any{&expr.Counter{}}, nil, false},
		{"verdicts", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, false},
		{"chains", []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "a"}}, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "b"}}, false},
		{"jump and goto", []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "a"}}, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "a"}}, false},
		{"operators", []expr.Any{&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{1}}}, []expr.Any{&expr.Cmp{Register: 1, Op: expr.CmpOpNeq, Data: []byte{1}}}, false},
		{"lengths of values", []expr.Any{&expr.Cmp{Register: 1, Data: []byte{1}}}, []expr.Any{&expr.Cmp{Register: 1, Data: []byte{1, 0}}}, false},
		{"order", []expr.Any{&expr.Counter{}, &expr.Notrack{}}, []expr.Any{&expr.Notrack{}, &expr.Counter{}}, false},
		{"the default level of a log", []expr.Any{&expr.Log{Level: expr.LogLevelWarning, Key: 1 << unix.NFTA_LOG_LEVEL}}, []expr.Any{&expr.Log{}}, true},
		{"another level of a log", []expr.Any{&expr.Log{Level: expr.LogLevelErr, Key: 1 << unix.NFTA_LOG_LEVEL}}, []expr.Any{&expr.Log{}}, false},
	}
	for _, test := range tests {
		if got := formOf(t, list(t, test.a...)) == formOf(t, list(t, test.b...)); got != test.same {
			t.Errorf("%s: equal is %t, want %t", test.name, got, test.same)
		}
	}
}

func TestUnknownExpressionsAndAttributesCount(t *testing.T) {
	t.Parallel()
	raw := func(name string, typ uint16, value []byte) []byte {
		var m nlmsg.Message
		elem := m.Nest(unix.NFTA_LIST_ELEM)
		m.CString(unix.NFTA_EXPR_NAME, name)
		data := m.Nest(unix.NFTA_EXPR_DATA)
		m.Bytes(typ, value)
		m.End(data)
		m.End(elem)
		return m.Buf
	}
	notrack := formOf(t, raw("notrack", 99, nil))
	for name, b := range map[string][]byte{
		"an unknown expression":                raw("teleport", 1, []byte{0, 0, 0, 1}),
		"an attribute that notrack has not":    raw("notrack", 99, []byte{0, 0, 0, 1}),
		"another expression of the same shape": raw("notracks", 99, nil),
	} {
		if formOf(t, b) == notrack {
			t.Errorf("%s makes no difference", name)
		}
	}
	if formOf(t, raw("teleport", 1, []byte{1})) == formOf(t, raw("teleport", 1, []byte{2})) {
		t.Error("the contents of an unknown expression make no difference")
	}
}

func TestReferencesOfRules(t *testing.T) {
	t.Parallel()
	_, refs, err := canonical(list(t,
		&expr.Lookup{SetName: "s", SourceRegister: 1},
		&expr.Dynset{SetName: "d", SrcRegKey: 1},
		&expr.Verdict{Kind: expr.VerdictJump, Chain: "c"}))
	if err != nil || !slices.Equal(refs.sets, []string{"s", "d"}) || !slices.Equal(refs.chains, []string{"c"}) {
		t.Errorf("references %+v, %v", refs, err)
	}
}

// kernelElement is an element as the kernel dumps it.
type kernelElement struct {
	key byte
	end bool
}

func TestElementsOfDumps(t *testing.T) {
	t.Parallel()
	type span struct{ first, last byte }
	tests := []struct {
		name string
		in   []kernelElement
		want []span
		torn bool
	}{
		{"nothing", nil, nil, false},
		{"the leading mark alone", []kernelElement{{key: 0, end: true}}, nil, false},
		{"one range", []kernelElement{{key: 0, end: true}, {key: 5}, {key: 9, end: true}}, []span{{5, 8}}, false},
		{"downwards", []kernelElement{{key: 9, end: true}, {key: 5}, {key: 0, end: true}}, []span{{5, 8}}, false},
		{"ranges that touch", []kernelElement{{key: 5}, {key: 9, end: true}, {key: 9}, {key: 12, end: true}}, []span{{5, 8}, {9, 11}}, false},
		{"ranges that touch, downwards", []kernelElement{{key: 12, end: true}, {key: 9}, {key: 9, end: true}, {key: 5}}, []span{{5, 8}, {9, 11}}, false},
		{"from the first to the last key", []kernelElement{{key: 0}}, []span{{0, 255}}, false},
		{"up to the last key", []kernelElement{{key: 1}, {key: 2, end: true}, {key: 255}}, []span{{1, 1}, {255, 255}}, false},
		{"an end of nothing", []kernelElement{{key: 3, end: true}, {key: 5}, {key: 9, end: true}}, []span{{5, 8}}, true},
		{"a range without an end", []kernelElement{{key: 3}, {key: 5}, {key: 9, end: true}}, []span{{3, 4}, {5, 8}}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var m nlmsg.Message
			l := m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			w := elementWriter{}
			for _, e := range test.in {
				w.key(&m, string([]byte{e.key}), verdict{}, e.end)
			}
			m.End(l)
			r := newElementReader(&Set{keyLen: 1, flags: unix.NFT_SET_INTERVAL})
			if n, err := eachElement(m.Buf, r.element); err != nil || n != len(test.in) {
				t.Fatal(n, err)
			}
			e := r.elements()
			var got []span
			for i := range e.len() {
				got = append(got, span{e.first(i)[0], e.last(i)[0]})
			}
			if !slices.Equal(got, test.want) || e.torn != test.torn {
				t.Errorf("got %v torn %t, want %v torn %t", got, e.torn, test.want, test.torn)
			}
		})
	}
}

func TestVerdictsOfDumps(t *testing.T) {
	t.Parallel()
	var m nlmsg.Message
	l := m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	w := elementWriter{}
	want := []verdict{{code: 1, set: true}, {code: unix.NFT_GOTO, chain: "a", set: true}, {code: 1, set: true}, {code: unix.NFT_JUMP, chain: "a", set: true}, {}}
	for i, v := range want {
		w.key(&m, string([]byte{byte(i)}), v, false)
	}
	m.End(l)
	r := newElementReader(&Set{keyLen: 1})
	if _, err := eachElement(m.Buf, r.element); err != nil {
		t.Fatal(err)
	}
	e := r.elements()
	for i, v := range want {
		if e.verdict(i) != v {
			t.Errorf("verdict %d is %+v, want %+v", i, e.verdict(i), v)
		}
		back, err := verdictOf(v.ruleset())
		if err != nil || back != v {
			t.Errorf("verdict %+v becomes %+v, %v", v, back, err)
		}
	}
}

func TestTornAndHugeElementMessages(t *testing.T) {
	t.Parallel()
	// Ranges stay together, and no list is longer than 16 bits can say.
	p := planner{batch: &batch{}}
	s := largeSet(10_000)
	w := p.elementWriter(unix.NFT_MSG_NEWSETELEM, create, Add, s)
	for _, e := range s.Elements {
		w.element(e.First, e.Last, verdict{code: unix.NFT_GOTO, chain: "a.chain.of.some.length", set: true})
	}
	w.close()
	if len(p.batch.operations) < 10 {
		t.Fatalf("%d messages", len(p.batch.operations))
	}
	r := newElementReader(&Set{keyLen: 4, flags: unix.NFT_SET_INTERVAL})
	b := p.batch.message.Buf
	for len(b) > 0 {
		length := int(binary.NativeEndian.Uint32(b))
		if length > 65_000 {
			t.Fatalf("a message of %d bytes", length)
		}
		n, err := eachElement(b[nlmsg.HeaderSize+nlmsg.NetfilterSize:length], r.element)
		if err != nil || n%2 != 0 {
			t.Fatalf("a message of %d elements: %v", n, err)
		}
		b = b[length:]
	}
	e := r.elements()
	if e.len() != 10_000 || e.torn || string(e.first(9_999)) != s.Elements[9_999].First || string(e.last(9_999)) != s.Elements[9_999].Last {
		t.Errorf("%d elements, torn %t", e.len(), e.torn)
	}
}

// FuzzDecode feeds bytes to everything that reads what the kernel says: it may
// fail, but not panic.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(list(f, &expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{1, 2, 3, 4}}, &expr.Verdict{Kind: expr.VerdictJump, Chain: "x"}))
	for _, c := range webTable().Chains {
		for _, r := range c.Rules {
			b, err := encodeRule(r)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	p := planner{delta: &Delta{}, have: &Table{}, want: webTable()}
	if err := p.plan(); err != nil {
		f.Fatal(err)
	}
	f.Add(p.delta.batches[0].message.Buf)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, _ = canonical(b)
		_ = Rule{expressions: b}.Text()
		_, _ = decodeTable(b)
		_, _, _ = decodeChain(b)
		_, _, _ = decodeRule(b)
		_, _ = decodeSet(b)
		_, _ = decodeOther(b, false)
		_, _, _ = foreignNeeds(b)
		_, _ = decodeRecord(b)
		_ = elementKey(b)
		_ = decodeUserData(b)
		_ = nlmsg.Split(b, func(r nlmsg.Reply) error {
			_, _ = nlmsg.DecodeError(r)
			return nlmsg.DecodeDone(r)
		})
		for _, flags := range []uint32{0, unix.NFT_SET_INTERVAL} {
			r := newElementReader(&Set{keyLen: 4, flags: flags})
			if _, err := eachElement(b, r.element); err == nil {
				e := r.elements()
				for i := range e.len() {
					if e.interval && string(e.first(i)) > string(e.last(i)) && !e.torn {
						t.Errorf("range %x-%x", e.first(i), e.last(i))
					}
				}
			}
		}
	})
}
