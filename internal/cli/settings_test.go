package cli

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/apply"
	"sgc/conntrack"
)

// settingsAt returns what a command would find of a host.
func settingsAt(have conntrack.Settings, kept *keptSettings, locks conntrack.Locks) *settingsSight {
	if kept == nil {
		kept = new(keptSettings)
	}
	return &settingsSight{have: have, kept: kept, locks: locks}
}

func TestPlansOfSettings(t *testing.T) {
	const udp, stream, limit = conntrack.TimeoutUDP, conntrack.TimeoutUDPStream, conntrack.MaxEntries
	type settings = conntrack.Settings
	for _, tc := range []struct {
		name     string
		have     settings
		kept     *keptSettings
		locks    conntrack.Locks
		want     settings
		giveBack bool
		// plan is what is to be set, lines, drift and notes what is shown.
		plan, lines, drift, notes string
		found, set                settings
	}{
		{
			name: "the first time", have: settings{udp: 30, stream: 120}, want: settings{udp: 30, stream: 180}, giveBack: true,
			plan: "udp_stream_timeout 120s → 180s\n", lines: "udp stream timeout 2m → 3m",
			found: settings{udp: 30, stream: 120}, set: settings{udp: 30, stream: 180},
		},
		{
			name: "nothing to do", have: settings{stream: 180}, kept: &keptSettings{Found: settings{stream: 120}, Set: settings{stream: 180}}, want: settings{stream: 180}, giveBack: true,
			found: settings{stream: 120}, set: settings{stream: 180},
		},
		{
			name: "drift", have: settings{stream: 90}, kept: &keptSettings{Found: settings{stream: 120}, Set: settings{stream: 180}}, want: settings{stream: 180}, giveBack: true,
			plan: "udp_stream_timeout 90s → 180s\n", drift: "the host's udp stream timeout is 90s, not 3m  (changed by hand)",
			found: settings{stream: 120}, set: settings{stream: 180},
		},
		{
			name: "drift, and the policy changes", have: settings{stream: 90}, kept: &keptSettings{Found: settings{stream: 120}, Set: settings{stream: 180}}, want: settings{stream: 60}, giveBack: true,
			plan: "udp_stream_timeout 90s → 60s\n", lines: "udp stream timeout 3m → 1m", drift: "the host's udp stream timeout is 90s, not 3m  (changed by hand)", notes: "a timeout of the host gets shorter",
			found: settings{stream: 120}, set: settings{stream: 60},
		},
		{
			name: "somebody set what the policy now says", have: settings{stream: 60}, kept: &keptSettings{Found: settings{stream: 120}, Set: settings{stream: 180}}, want: settings{stream: 60}, giveBack: true,
			found: settings{stream: 120}, set: settings{stream: 60},
		},
		{
			name: "a run that ended before it set anything", have: settings{stream: 120},
			kept: &keptSettings{Found: settings{stream: 120}, Set: settings{stream: 120}, Changing: settings{stream: 180}}, want: settings{stream: 180}, giveBack: true,
			plan: "udp_stream_timeout 120s → 180s\n", lines: "udp stream timeout 2m → 3m",
			found: settings{stream: 120}, set: settings{stream: 180},
		},
		{
			name: "a run that ended after it set everything", have: settings{stream: 180},
			kept: &keptSettings{Found: settings{stream: 120}, Set: settings{stream: 120}, Changing: settings{stream: 180}}, want: settings{stream: 180}, giveBack: true,
			found: settings{stream: 120}, set: settings{stream: 180},
		},
		{
			name: "not wanted any more", have: settings{udp: 40, stream: 180}, kept: &keptSettings{Found: settings{udp: 31, stream: 120}, Set: settings{udp: 40, stream: 180}}, want: settings{stream: 180}, giveBack: true,
			plan: "udp_timeout 40s → 31s\n", lines: "udp timeout 40s → 31s as sgc found it", notes: "a timeout of the host gets shorter",
			found: settings{stream: 120}, set: settings{stream: 180},
		},
		{
			name: "not named, and not to be given back", have: settings{udp: 40, stream: 120}, kept: &keptSettings{Found: settings{udp: 31}, Set: settings{udp: 40}}, want: settings{stream: 180},
			plan: "udp_stream_timeout 120s → 180s\n", lines: "udp stream timeout 2m → 3m",
			found: settings{udp: 31, stream: 120}, set: settings{udp: 40, stream: 180},
		},
		{
			name: "all is given back, drift too", have: settings{udp: 99, stream: 180}, kept: &keptSettings{Found: settings{udp: 31, stream: 120}, Set: settings{udp: 40, stream: 180}}, giveBack: true,
			plan: "udp_timeout 99s → 31s\nudp_stream_timeout 180s → 120s\n", lines: "udp timeout 40s → 31s as sgc found it\nudp stream timeout 3m → 2m as sgc found it",
			drift: "the host's udp timeout is 99s, not 40s  (changed by hand)", notes: "a timeout of the host gets shorter",
		},
		{
			name: "a limit that is the host's", have: settings{limit: 1000}, locks: conntrack.Locks{limit: unix.EACCES}, want: settings{limit: 2000}, giveBack: true,
			notes: "the policy wants conntrack max = 2,000, but it stays as it is: the limit is one for the whole host",
		},
		{
			name: "a limit that is right, wherever it may be set", have: settings{limit: 2000}, locks: conntrack.Locks{limit: unix.EACCES}, want: settings{limit: 2000}, giveBack: true,
			found: settings{limit: 2000}, set: settings{limit: 2000},
		},
		{
			name: "a setting that the kernel does not have", have: settings{}, want: settings{conntrack.TimeoutICMPv6: 20}, giveBack: true,
			notes: "the policy wants icmpv6 timeout = 20s, but it stays as it is: this kernel has no such setting",
		},
		{
			name: "a setting that the kernel does not have any more", have: settings{}, kept: &keptSettings{Found: settings{udp: 31}, Set: settings{udp: 40}}, giveBack: true,
		},
		{
			name: "sysctl alone, and read-only", have: settings{stream: 120}, locks: conntrack.Locks{stream: unix.EROFS}, want: settings{stream: 180}, giveBack: true,
			notes: "modprobe nfnetlink_cttimeout",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := planSettings(settingsAt(tc.have, tc.kept, tc.locks), tc.want, tc.giveBack)
			var lines, drift []string
			for _, s := range p.sections() {
				for _, r := range s.rows {
					lines = append(lines, strings.Join(r.cells, " "))
				}
			}
			for _, d := range p.drift(false) {
				drift = append(drift, d.Description)
			}
			notes := strings.Join(p.notes(), "\n")
			if p.text() != tc.plan || strings.Join(lines, "\n") != tc.lines || strings.Join(drift, "\n") != tc.drift || !strings.Contains(notes, tc.notes) || (notes == "") != (tc.notes == "") {
				t.Errorf("%q, shown as %q, drift %q, notes %q", p.text(), lines, drift, notes)
			}
			if !maps.Equal(p.kept.Found, tc.found) || !maps.Equal(p.kept.Set, tc.set) || len(p.kept.Changing) > 0 {
				t.Errorf("then it knows %+v", p.kept)
			}
			if p.changed() != len(lines) || p.empty() != (tc.plan == "") {
				t.Errorf("%d changes, empty %v", p.changed(), p.empty())
			}
			// Once it is done, nothing is to do.
			have := maps.Clone(tc.have)
			for _, c := range p.changes() {
				have[c.Setting] = c.New
			}
			if again := planSettings(settingsAt(have, p.kept, tc.locks), tc.want, tc.giveBack); !again.empty() || !again.kept.equal(p.kept) {
				t.Errorf("the second time: %q, %+v", again.text(), again.kept)
			}
			// Wherever a run ends, the next one finishes it without drift, and what
			// was found stays.
			have = maps.Clone(tc.have)
			for _, c := range p.changes() {
				half := planSettings(settingsAt(have, p.underWay(), tc.locks), tc.want, tc.giveBack)
				if len(half.drift(false)) > 0 || !maps.Equal(half.kept.Found, p.kept.Found) || !half.kept.equal(p.kept) {
					t.Errorf("cut off before %s: drift %v, %+v", c, half.drift(false), half.kept)
				}
				have[c.Setting] = c.New
			}
		})
	}
}

// A kernel without timeouts over netlink is told by sysctl, and that is said.
func TestSettingsBySysctl(t *testing.T) {
	s := newStage(t, true)
	_, dir := s.open()
	table, err := conntrack.Open(s.ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	table.PretendNoTimeouts()
	v := &settingsSight{kept: new(keptSettings)}
	if err := v.read(table); err != nil {
		t.Fatal(err)
	}
	begin := s.settings()
	p := planSettings(v, conntrack.Settings{conntrack.TimeoutTCPEstablished: 350, conntrack.TimeoutUDPStream: 180}, true)
	done, err := p.carryOut(table, dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	writeTuned(&b, done)
	if want := "tcp established timeout 5d → 350s (by sysctl)\nudp stream timeout 2m → 3m (by sysctl)\n"; b.String() != want {
		t.Errorf("it says %q, want %q", b.String(), want)
	}
	for _, v := range p.views(done) {
		if v.By != "sysctl" {
			t.Errorf("%+v", v)
		}
	}
	if now := s.settings(); now["tcp_timeout_established"] != "350" || now["udp_timeout_stream"] != "180" {
		t.Errorf("the kernel has %v", now)
	}
	s.mustRun("destroy", "--auto-approve")
	if now := s.settings(); !maps.Equal(now, begin) {
		t.Errorf("after destroy the kernel has %v, want %v", now, begin)
	}
}

// Where /proc/sys is read-only, as in containers, netlink is the way.
func TestSettingsWithReadOnlySysctls(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	begin := s.settings()
	readOnly := func(args ...string) result {
		t.Helper()
		sgc := s.child(args...)
		cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", `mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && ! echo 1 2>/dev/null >/proc/sys/net/netfilter/nf_conntrack_udp_timeout && exec "$0" "$@"`}, sgc.Args...)...)
		cmd.Env, cmd.Dir = sgc.Env, sgc.Dir
		return outcome(t, cmd)
	}
	r := readOnly("apply", "--auto-approve", "--verbose", s.dir)
	if strings.Contains(r.err, "unshare") || strings.Contains(r.err, "mount") {
		t.Skipf("SKIP: no mount namespace here: %s", r.err)
	}
	if r.code != 0 || !strings.Contains(r.out, "udp stream timeout 2m → 3m (by netlink)\n") {
		t.Fatalf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if now := s.settings(); now["udp_timeout_stream"] != "180" {
		t.Errorf("the kernel has %v", now)
	}
	if r := readOnly("destroy", "--auto-approve"); r.code != 0 {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if now := s.settings(); !maps.Equal(now, begin) {
		t.Errorf("after destroy the kernel has %v, want %v", now, begin)
	}
}

// settings reads all timeouts of the namespace, as somebody else would.
func (s *stage) settings() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for _, name := range []string{"tcp_timeout_established", "udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout", "generic_timeout"} {
		v, err := s.ns.Sysctl("net/netfilter/nf_conntrack_" + name)
		if err != nil {
			s.t.Fatal(err)
		}
		all[name] = v
	}
	return all
}

// Settings that cannot be kept are not set: nobody could bring them back. The
// table is in force then, and the next apply goes on.
func TestSettingsThatCannotBeKept(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	_, dir := s.open()
	begin := s.settings()
	inTheWay := filepath.Join(dir.Path(), "settings.json.new")
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	s.mustFail(s.sgc(t.Context(), nil, "apply", "--auto-approve", s.dir), "is in force, but not its conntrack settings", "the next sgc apply sets them", "is a directory")
	if now := s.settings(); !maps.Equal(now, begin) {
		t.Errorf("the kernel has %v, want %v", now, begin)
	}
	if r := s.mustRun("status"); !strings.HasPrefix(r.out, "Enforced since ") || !strings.Contains(r.out, "drift\n  none\n") || !strings.Contains(r.out, "sgc apply sets them: udp stream timeout 2m → 3m") {
		t.Errorf("status prints\n%s", r.out)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	if r := s.mustRun("apply", "--auto-approve", s.dir); !strings.Contains(r.out, "No transaction, only conntrack settings.") {
		t.Errorf("apply prints\n%s", r.out)
	}
	if now := s.settings(); now["udp_timeout_stream"] != "180" {
		t.Errorf("the kernel has %v", now)
	}
	s.mustRun("destroy", "--auto-approve")
	if now := s.settings(); !maps.Equal(now, begin) {
		t.Errorf("after destroy the kernel has %v, want %v", now, begin)
	}
}

// What was mended once is drift when it happens again.
func TestDriftOfSettingsAgain(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.mustRun("apply", "--auto-approve", s.dir)
	for _, value := range []string{"90", "91"} {
		if err := s.ns.Do(func() error {
			return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", []byte(value), 0)
		}); err != nil {
			t.Fatal(err)
		}
		if r := s.mustRun("plan", s.dir); !strings.Contains(r.out, "the host's udp stream timeout is "+value+"s, not 3m  (changed by hand)") {
			t.Errorf("plan prints\n%s", r.out)
		}
		s.mustRun("apply", "--auto-approve", s.dir)
		if now := s.settings(); now["udp_timeout_stream"] != "180" {
			t.Errorf("the kernel has %v", now)
		}
		if r := s.mustRun("status"); !strings.Contains(r.out, "drift\n  none\n") {
			t.Errorf("status prints\n%s", r.out)
		}
	}
}

// A file that cannot be believed stops every command that needs it.
func TestKeptSettingsThatCannotBeRead(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.mustRun("apply", "--auto-approve", s.dir)
	_, dir := s.open()
	commands := [][]string{{"plan", s.dir}, {"apply", "--auto-approve", s.dir}, {"status"}, {"destroy", "--auto-approve"}, {"conntrack", "tune", "--auto-approve", s.dir}}
	for content, says := range map[string]string{
		`{"format_version":2,"found":[]}`:                             "use the newer sgc",
		`{"format_version":1,"found":{"tcp_time":1},"set":{}}`:        `no conntrack setting "tcp_time"`,
		`{"format_version":1,"found":{"udp_timeout":"many"},"set":1}`: "read the settings",
	} {
		if err := dir.KeepSettings([]byte(content)); err != nil {
			t.Fatal(err)
		}
		for _, command := range commands {
			s.mustFail(s.sgc(t.Context(), nil, command...), says)
		}
	}
	if err := os.WriteFile(filepath.Join(dir.Path(), "settings.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range commands {
		s.mustFail(s.sgc(t.Context(), nil, command...), "settings.json is damaged", "before sgc set them is forgotten")
	}
}

// tune keeps nothing where nothing was applied: there is no destroy to come.
func TestTuneWithoutARecord(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	for range 2 {
		s.mustRun("conntrack", "tune", "--auto-approve", s.dir)
		if raw, err := apply.OpenDir(s.state()); err == nil {
			if kept, err := raw.Settings(); kept != nil || err != nil {
				t.Errorf("it kept %s, %v", kept, err)
			}
		}
	}
	if now := s.settings(); now["udp_timeout_stream"] != "180" {
		t.Errorf("the kernel has %v", now)
	}
}

// The lines of the policy's own changes give way to what happens to the kernel,
// and to nothing else.
func TestSettingsAreToldOnce(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.mustRun("apply", "--auto-approve", s.dir)
	s.write("web.hcl", webPolicy+"\nhost {\n  conntrack {\n    icmp_timeout    = 20\n    generic_timeout = 600\n  }\n}\n")
	r := s.mustRun("plan", s.dir)
	lines := strings.Split(r.out, "\n")
	for line, want := range map[string]int{"  + conntrack.generic timeout  10m": 1, "  ~ icmp timeout    30s → 20s": 1, "  ~ icmpv6 timeout  30s → 20s": 1} {
		n := 0
		for _, l := range lines {
			if l == line {
				n++
			}
		}
		if n != want {
			t.Errorf("%q stands %d times in\n%s", line, n, r.out)
		}
	}
	if strings.Contains(r.out, "conntrack.icmp timeout") || slices.Contains(lines, "  ~ generic timeout  10m → 10m") {
		t.Errorf("plan prints\n%s", r.out)
	}
}
