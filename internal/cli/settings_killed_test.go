package cli

import (
	"context"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"sgc/conntrack"
)

// An apply that is killed after its commit has not set the settings, or some of
// them: that is no drift, and the next apply goes on.
func TestKilledBeforeTheSettings(t *testing.T) {
	for _, tc := range []struct {
		name string
		// made is how many settings were set when the run ended, after it wrote
		// down that it sets them; -1 is before that.
		made int
	}{
		{"before it wrote down what it found", -1},
		{"before it set anything", 0},
		{"before it said that all is set", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, true)
			s.write("web.hcl", webPolicy)
			begin := s.settings()
			k, dir := s.open()
			p := s.begin(k, dir, s.dir)
			if len(p.settings.steps) != 1 {
				t.Fatalf("%d settings are to be set", len(p.settings.steps))
			}
			if err := k.Commit(context.Background(), p.delta); err != nil {
				t.Fatal(err)
			}
			if tc.made >= 0 {
				if err := p.settings.underWay().keep(dir); err != nil {
					t.Fatal(err)
				}
				err := insideTable(k, func(table *conntrack.Table) error {
					_, err := table.Tune(p.settings.changes()[:tc.made])
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}

			r := s.mustRun("status")
			if said := strings.Contains(r.out, "sgc apply sets them: udp stream timeout 2m → 3m"); said != (tc.made < 1) || !strings.Contains(r.out, "drift\n  none\n") {
				t.Errorf("status prints\n%s", r.out)
			}
			if r := s.mustRun("plan", s.dir); strings.Contains(r.out, "No changes.") != (tc.made == 1) || strings.Contains(r.out, "drift") {
				t.Errorf("plan prints\n%s", r.out)
			}
			s.mustRun("apply", "--auto-approve", s.dir)
			if now := s.settings(); now["udp_timeout_stream"] != "180" {
				t.Errorf("the kernel has %v", now)
			}
			if r := s.mustRun("plan", s.dir); !strings.Contains(r.out, "No changes.") {
				t.Errorf("then plan prints\n%s", r.out)
			}
			s.mustRun("destroy", "--auto-approve")
			if now := s.settings(); !maps.Equal(now, begin) {
				t.Errorf("after destroy the kernel has %v, want %v", now, begin)
			}
		})
	}
}

// A destroy that is killed between the table and the settings is finished by
// the next one, and an apply knows what was there before all.
func TestKilledBeforeTheSettingsAreBack(t *testing.T) {
	requireNft(t)
	for _, next := range []string{"destroy", "apply"} {
		for _, recorded := range []bool{false, true} {
			s := newStage(t, true)
			s.write("web.hcl", webPolicy)
			begin := s.settings()
			s.mustRun("apply", "--auto-approve", s.dir)
			_, dir := s.open()
			r, err := newRecord("", "", enforced{})
			if err != nil {
				t.Fatal(err)
			}
			if err := dir.WriteAhead(r); err != nil {
				t.Fatal(err)
			}
			s.nft("delete table inet sgc")
			if recorded {
				if err := dir.Remove(); err != nil {
					t.Fatal(err)
				}
			}
			if r := s.mustRun("status"); !strings.HasPrefix(r.out, "Nothing is enforced.\n") || !strings.Contains(r.out, "sgc destroy brings them back: udp stream timeout 3m → 2m") {
				t.Errorf("status prints\n%s", r.out)
			}
			if next == "apply" {
				s.mustRun("apply", "--auto-approve", s.dir)
			} else {
				s.mustFail(s.sgc(context.Background(), nil, "destroy"), "  ~ udp stream timeout 3m → 2m", "Nothing was changed")
			}
			s.mustRun("destroy", "--auto-approve")
			if now := s.settings(); !maps.Equal(now, begin) {
				t.Errorf("%s, recorded %v: the kernel has %v, want %v", next, recorded, now, begin)
			}
			if raw, err := dir.Settings(); raw != nil || err != nil {
				t.Errorf("%s, recorded %v: still kept: %s, %v", next, recorded, raw, err)
			}
			if r := s.mustRun("status"); r.out != "Nothing is enforced.\n" {
				t.Errorf("at the end status prints\n%s", r.out)
			}
		}
	}
}

// Wherever a real kill hits an apply, a destroy or tune: what sgc found is never
// lost, nothing that it did itself is drift, and the next apply sets all.
func TestKillWhileSettingsChange(t *testing.T) {
	s := newStage(t, true)
	// Two interfaces that disagree, and two that agree: other defaults.
	other := strings.Replace(webPolicy, `interface "eth0" {`, "interface \"eth0\" {\n  connection_tracking {\n    tcp_established_timeout = 350\n    udp_timeout = 40\n    udp_stream_timeout = 60\n  }", 1)
	s.write("web/web.hcl", webPolicy)
	s.write("other/other.hcl", other)
	begin := s.settings()
	web, tuned := filepath.Join(s.dir, "web"), filepath.Join(s.dir, "other")
	s.mustRun("apply", "--auto-approve", web)
	commands := [][]string{
		{"conntrack", "tune", "--auto-approve", tuned}, {"apply", "--auto-approve", web},
		{"conntrack", "tune", "--auto-approve", tuned}, {"destroy", "--auto-approve"},
	}
	k := newKiller(t)
	for i := 0; i < 40 || k.killed == 0 && i < 400; i++ {
		k.start(s, commands[i%len(commands)]...)
		if r := s.mustRun("status"); strings.Contains(r.out, "by hand") {
			t.Fatalf("round %d: status prints\n%s", i, r.out)
		}
		if i%len(commands) == 3 {
			// tune keeps nothing where nothing is applied.
			s.mustRun("apply", "--auto-approve", web)
		}
		if i%8 == 7 {
			s.mustRun("apply", "--auto-approve", web)
			if now := s.settings(); now["udp_timeout_stream"] != "180" || now["tcp_timeout_established"] != "432000" {
				t.Fatalf("round %d: the kernel has %v", i, now)
			}
			s.mustRun("destroy", "--auto-approve")
			if now := s.settings(); !maps.Equal(now, begin) {
				t.Fatalf("round %d: after destroy the kernel has %v, want %v", i, now, begin)
			}
			s.mustRun("apply", "--auto-approve", web)
		}
	}
	t.Logf("%d runs were cut off", k.killed)
	if k.killed == 0 {
		t.Error("no kill came in time")
	}
}
