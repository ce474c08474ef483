package livetest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/nftables"

	"sgc/internal/flow"
)

// litter is how much there is of everything that a change could leave behind.
type litter struct {
	chains, rules, sets, elements, held int
	files                               int
	bytes                               int64
}

func (s *stand) litter() litter {
	s.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "sgc"}
	var l litter
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range chains {
		if c.Table.Name != "sgc" {
			continue
		}
		l.chains++
		rules, err := conn.GetRules(table, c)
		if err != nil {
			s.t.Fatal(err)
		}
		l.rules += len(rules)
	}
	sets, err := conn.GetSets(table)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, set := range sets {
		l.sets++
		if set.Name == adoption {
			continue // it ends by itself, five minutes after the first apply
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			s.t.Fatal(err)
		}
		l.elements += len(elements)
	}
	l.held = len(s.held())
	l.elements -= l.held
	err = filepath.Walk(s.state(), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			l.files++
			l.bytes += info.Size()
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// A policy that flips back and forth leaves nothing behind.
//
// SGC_LARGE makes it flip a thousand times.
func TestFlipsLeaveNoLitter(t *testing.T) {
	t.Parallel()
	d := flow.Ingress
	for _, tt := range []struct {
		name     string
		at       place
		flips    int
		from, to policy
	}{
		{"open and closed", plain, 100, open(d), closed(d)},
		{"open and closed", notrackOff, 30, open(d), closed(d)},
		{"tracked and deleted", plain, 30, policy{
			rules: closed(d).rules, groups: map[string][]string{"g": {serviceRule(d, friends)}}, attached: []string{"a", "g"},
		}, closed(d)},
		{"open and narrowed", besideNAT, 30, open(d), narrowed(d, friends...)},
	} {
		t.Run(tt.name+"/"+tt.at.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, tt.at)
			s.apply(tt.from)
			talks := s.open(kinds(call{direction: d})...)
			flip := func() {
				// Each time there are the same flows to cut.
				s.reopen(tt.from, talks...)
				s.goOn("allowed again", only(talks, isUDP)...)
				s.apply(tt.to)
			}
			s.apply(tt.to)
			flip()
			once := s.litter()
			flips := tt.flips
			if os.Getenv("SGC_LARGE") != "" {
				flips = 1000
			}
			for range flips {
				flip()
			}
			if many := s.litter(); many.chains != once.chains || many.rules != once.rules || many.sets != once.sets ||
				many.elements != once.elements || many.held > once.held || many.files != once.files || many.bytes > once.bytes+200 {
				t.Errorf("after one flip there is %+v, after %d there is %+v", once, flips+1, many)
			}
		})
	}
}
