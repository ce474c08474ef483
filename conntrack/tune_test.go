package conntrack

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// other are settings that no kernel begins with.
var other = Settings{
	TimeoutTCPEstablished: 351, TimeoutUDP: 41, TimeoutUDPStream: 121, TimeoutICMP: 11, TimeoutICMPv6: 12, TimeoutGeneric: 301,
}

func settingsOf(t *testing.T, table *Table) Settings {
	t.Helper()
	s, err := table.Settings()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sysctls reads the timeouts of a namespace without netlink.
func sysctls(t *testing.T, ns *lab.Namespace) Settings {
	t.Helper()
	all := Settings{}
	for s, k := range kernelSettings {
		text, err := ns.Sysctl(strings.ReplaceAll(k.sysctl, ".", "/"))
		if err != nil {
			t.Fatal(err)
		}
		v := uint32(0)
		for _, digit := range text {
			v = v*10 + uint32(digit-'0')
		}
		all[Setting(s)] = v
	}
	return all
}

func TestTimeoutsOfANamespace(t *testing.T) {
	for _, way := range []Way{ByNetlink, BySysctl} {
		t.Run(string(way), func(t *testing.T) {
			ns, neighbour := labtest.Namespace(t, "host"), labtest.Namespace(t, "neighbour")
			table := openTable(t, ns)
			table.noTimeouts = way == BySysctl
			begin := settingsOf(t, table)
			if len(begin) != int(settingCount) || !maps.Equal(begin, sysctls(t, ns)) {
				t.Fatalf("%v, want %v", begin, sysctls(t, ns))
			}
			done, err := table.Tune(DiffSettings(begin, other))
			if err != nil || len(done) != len(other) {
				t.Fatalf("%v, %v", done, err)
			}
			for _, d := range done {
				if d.By != way || d.Refused != "" {
					t.Errorf("%s: by %q, refused %q", d, d.By, d.Refused)
				}
			}
			want := maps.Clone(begin)
			maps.Copy(want, other)
			if got := settingsOf(t, table); !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			if got := sysctls(t, ns); !maps.Equal(got, want) {
				t.Errorf("sysctl says %v, want %v", got, want)
			}
			if got := sysctls(t, neighbour); !maps.Equal(got, begin) {
				t.Errorf("another namespace has %v, want %v", got, begin)
			}
			// What was recorded at the beginning comes back.
			if _, err := table.Tune(DiffSettings(settingsOf(t, table), begin)); err != nil {
				t.Fatal(err)
			}
			if got := settingsOf(t, table); !maps.Equal(got, begin) {
				t.Errorf("after the way back %v, want %v", got, begin)
			}
		})
	}
}

func TestValuesThatTheKernelWouldMisunderstand(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	table := openTable(t, ns)
	begin := settingsOf(t, table)
	for _, bad := range []Settings{{TimeoutUDP: 40, TimeoutGeneric: 4294968}, {TimeoutUDP: 40, TimeoutICMP: 0}} {
		if done, err := table.Tune(DiffSettings(begin, bad)); err == nil {
			t.Errorf("%v: %v", bad, done)
		}
	}
	if got := settingsOf(t, table); !maps.Equal(got, begin) {
		t.Errorf("%v, want %v", got, begin)
	}
}

// The namespaces of tests never have the limit for themselves.
func TestTheLimitIsTheHosts(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	table := openTable(t, ns)
	begin := settingsOf(t, table)
	change := SettingChange{MaxEntries, begin[MaxEntries], begin[MaxEntries] + 1}
	done, err := table.Tune([]SettingChange{{TimeoutUDP, begin[TimeoutUDP], 41}, change})
	if err != nil || len(done) != 2 {
		t.Fatalf("%v, %v", done, err)
	}
	if done[0].By != ByNetlink || done[1].By != "" || !strings.Contains(done[1].Refused, "first network namespace") {
		t.Errorf("%+v", done)
	}
	want := maps.Clone(begin)
	want[TimeoutUDP] = 41
	if got := settingsOf(t, table); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if why, err := table.Refuses(change); why != done[1].Refused || err != nil {
		t.Errorf("known before: %q, %v", why, err)
	}
	if why, err := table.Refuses(SettingChange{TimeoutUDP, 1, 2}); why != "" || err != nil {
		t.Errorf("a timeout is refused: %q, %v", why, err)
	}
}

// sysctlTree makes files that look like settings of the kernel.
func sysctlTree(t *testing.T, content string, without ...Setting) string {
	t.Helper()
	dir := t.TempDir()
	for s, k := range kernelSettings {
		name := filepath.Join(dir, strings.ReplaceAll(k.sysctl, ".", "/"))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		missing := false
		for _, w := range without {
			missing = missing || w == Setting(s)
		}
		if missing {
			continue
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheLimitOfTheFirstNamespace(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	table.sysctl = sysctlTree(t, "1000\n")
	done, err := table.Tune([]SettingChange{{MaxEntries, 1000, 2000}})
	if err != nil || len(done) != 1 || done[0].By != BySysctl || done[0].Refused != "" {
		t.Fatalf("%+v, %v", done, err)
	}
	if got := settingsOf(t, table)[MaxEntries]; got != 2000 {
		t.Errorf("the limit is %d", got)
	}
	if why, err := table.Refuses(done[0].SettingChange); why != "" || err != nil {
		t.Errorf("refused: %q, %v", why, err)
	}
}

func TestSettingsThatTheKernelDoesNotHave(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	table.noTimeouts = true
	table.sysctl = sysctlTree(t, "30\n", TimeoutICMPv6, MaxEntries)
	got := settingsOf(t, table)
	if _, ok := got[TimeoutICMPv6]; ok || len(got) != int(settingCount)-2 {
		t.Errorf("%v", got)
	}
	if locks, err := table.Locks(); err != nil || len(locks) != 2 || locks[TimeoutICMPv6] == nil || locks[MaxEntries] == nil {
		t.Errorf("locked: %v, %v", locks, err)
	}
	table.sysctl = sysctlTree(t, "many\n")
	if s, err := table.Settings(); err == nil {
		t.Errorf("a setting of %q: %v", "many", s)
	}
}

// A change that fails takes those before it back.
func TestFailedChangesAreUndone(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	table.noTimeouts = true
	table.sysctl = sysctlTree(t, "30\n", TimeoutGeneric)
	changes := []SettingChange{{TimeoutTCPEstablished, 30, 350}, {TimeoutUDP, 30, 40}, {TimeoutGeneric, 30, 600}}
	done, err := table.Tune(changes)
	if !errors.Is(err, os.ErrNotExist) || done != nil {
		t.Fatalf("%v, %v", done, err)
	}
	if got := settingsOf(t, table); got[TimeoutTCPEstablished] != 30 || got[TimeoutUDP] != 30 {
		t.Errorf("after the failure %v", got)
	}
}

func TestWhyALimitIsRefused(t *testing.T) {
	limit, timeout := SettingChange{MaxEntries, 1, 2}, SettingChange{TimeoutUDP, 1, 2}
	for _, tc := range []struct {
		change SettingChange
		err    error
		says   string
	}{
		{limit, unix.EACCES, "first network namespace"},
		{limit, unix.EPERM, "sysctl -w net.netfilter.nf_conntrack_max=2"},
		{limit, unix.EROFS, "read-only"},
		{limit, unix.EINVAL, ""},
		{limit, nil, ""},
		{timeout, unix.EACCES, ""},
		{timeout, unix.EROFS, "modprobe nfnetlink_cttimeout"},
	} {
		if got := refusal(tc.change, tc.err); (got == "") != (tc.says == "") || !strings.Contains(got, tc.says) {
			t.Errorf("%s, %v: %q, want %q", tc.change, tc.err, got, tc.says)
		}
	}
}
