package policies_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sgc/policies"
)

func TestHostTimeouts(t *testing.T) {
	block := func(tcp, udp, stream int) *policies.Interface {
		return &policies.Interface{Timeouts: &policies.Timeouts{
			TCPEstablished: time.Duration(tcp) * time.Second, UDP: time.Duration(udp) * time.Second, UDPStream: time.Duration(stream) * time.Second,
		}}
	}
	none := &policies.Interface{}
	for _, row := range []struct {
		sentence   string
		interfaces []*policies.Interface
		want       policies.Timeouts
	}{
		{"no block leaves the host's alone", nil, policies.Timeouts{}},
		{"one block without timeouts has the language's", []*policies.Interface{none}, policies.DefaultTimeouts},
		{"one block's are the host's", []*policies.Interface{block(350, 40, 120)}, *block(350, 40, 120).Timeouts},
		{"two that agree, too", []*policies.Interface{block(350, 40, 120), block(350, 40, 120)}, *block(350, 40, 120).Timeouts},
		{"each setting by itself", []*policies.Interface{block(350, 40, 120), block(350, 50, 120)}, *block(350, 30, 120).Timeouts},
		{"a block without them has an opinion as well", []*policies.Interface{block(350, 30, 120), none}, policies.DefaultTimeouts},
		{"two against one are no agreement", []*policies.Interface{block(350, 40, 120), block(350, 40, 120), block(400, 45, 150)}, policies.DefaultTimeouts},
		{"nor are two that agree after one that does not", []*policies.Interface{block(400, 45, 150), block(350, 40, 120), block(350, 40, 120)}, policies.DefaultTimeouts},
	} {
		for range 3 {
			if got := (&policies.Policy{Interfaces: row.interfaces}).HostTimeouts(); got != row.want {
				t.Errorf("%s: got %v, want %v", row.sentence, got, row.want)
			}
			// The order of the blocks means nothing.
			row.interfaces = slices.Clone(row.interfaces)
			rand.Shuffle(len(row.interfaces), func(i, j int) {
				row.interfaces[i], row.interfaces[j] = row.interfaces[j], row.interfaces[i]
			})
		}
	}
}

func TestTimeoutsOfAlwaysTrackedPeers(t *testing.T) {
	i := &policies.Interface{Timeouts: &policies.Timeouts{TCPEstablished: time.Hour, UDP: 40 * time.Second, UDPStream: time.Minute}}
	for _, row := range []struct {
		block policies.AlwaysTrack
		want  policies.Timeouts
	}{
		{policies.AlwaysTrack{}, *i.Timeouts},
		{policies.AlwaysTrack{TCPEstablished: time.Second}, policies.Timeouts{TCPEstablished: time.Second, UDP: 40 * time.Second, UDPStream: time.Minute}},
		{policies.AlwaysTrack{UDPStream: time.Second}, policies.Timeouts{TCPEstablished: time.Hour, UDP: 40 * time.Second, UDPStream: time.Second}},
	} {
		if got := row.block.EffectiveTimeouts(i); got != row.want {
			t.Errorf("%+v: got %v, want %v", row.block, got, row.want)
		}
	}
}
