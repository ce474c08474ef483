package cli

import (
	"encoding/json"
	"maps"
	"testing"

	"sgc/apply"
	"sgc/internal/flow"
	"sgc/policies"
)

// What a record holds before the policy is read as read reads it.
func TestRecordIsReadAroundItsPolicy(t *testing.T) {
	e := enforced{By: "1.2.3", Conntrack: map[flow.Family]string{flow.IPv4: "table ip nat"}, Policy: &policies.Policy{}}
	own, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(own),
		`{"later":[{"by":1}],"by":"1.2.3","conntrack":{"4":"table ip nat"},"policy":null}`,
	} {
		at := new(policies.Policy)
		got, err := readAs(&apply.Record{Policy: json.RawMessage(text)}, at)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want := &enforced{}
		if err := json.Unmarshal([]byte(text), want); err != nil {
			t.Fatal(err)
		}
		if got.Policy != at || got.By != want.By || !maps.Equal(got.Conntrack, want.Conntrack) {
			t.Errorf("%s: read %+v, want %+v", text, got, want)
		}
	}
	for _, damaged := range []string{"", "7", `{"by":7}`, `{"by":"1.2.3"`} {
		if _, err := readAs(&apply.Record{Policy: json.RawMessage(damaged)}, nil); err == nil {
			t.Errorf("%q is read", damaged)
		}
	}
}
