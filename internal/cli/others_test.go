package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sgc/apply"
)

// typist answers a question after doing something else.
type typist struct {
	do   func()
	text io.Reader
	once sync.Once
}

func (y *typist) Read(b []byte) (int, error) {
	y.once.Do(y.do)
	return y.text.Read(b)
}

var expiry = regexp.MustCompile(` expires [0-9a-z]+`)

// table lists the table without the time that elements have left.
func (s *stage) table() string {
	s.t.Helper()
	return expiry.ReplaceAllString(s.nft("list table inet sgc"), "")
}

func TestSomebodyChangesNftablesWhileAPersonReadsThePlan(t *testing.T) {
	requireNft(t)
	for _, tc := range []struct {
		name, command string
		code          int
		says          string
	}{
		{"another table is no matter", "'add table ip other; add chain ip other c; add rule ip other c drop'", 0, ""},
		{"the own table is looked at again", "'add chain inet sgc mine; delete chain inet sgc mine'", 0, "looking again"},
		{"NAT makes it another plan", "'add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; add rule ip nat post masquerade'", 1, "it is not what would happen now; nothing was changed"},
		{"what was approved would not happen", "add rule inet sgc web.ingress.tcp4 tcp dport 4444 accept", 1, "it is not what would happen now; nothing was changed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, true)
			s.write("web.hcl", webPolicy)
			s.mustRun("apply", "--auto-approve", s.dir)
			s.write("web.hcl", dbPolicy)
			before := ""
			r := s.sgc(context.Background(), &typist{text: strings.NewReader("yes\n"), do: func() {
				s.nft(tc.command)
				before = s.table()
			}}, "apply", s.dir)
			if r.code != tc.code || !strings.Contains(r.err, tc.says) || tc.says == "" && strings.Contains(r.err, "looking again") {
				t.Fatalf("exit %d, %q", r.code, r.err)
			}
			if same := s.table() == before; same != (tc.code != 0) {
				t.Errorf("the table is unchanged: %v", same)
			}
		})
	}
}

func TestApplyAgainstABusyWriter(t *testing.T) {
	requireNft(t)
	s := newStage(t, true)
	s.write("web/web.hcl", webPolicy)
	s.write("db/db.hcl", dbPolicy)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				var out bytes.Buffer
				if s.shell("nft add table ip other && nft delete table ip other", os.Environ(), nil, &out, &out) != 0 {
					t.Errorf("nft: %s", &out)
					return
				}
			}
		}
	})
	defer writer.Wait()
	defer close(stop)
	for i := range 10 {
		s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, []string{"web", "db"}[i%2]))
	}
	s.write("large/large.hcl", networksPolicy("large", 22, 20_000))
	s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, "large"))
	if r := s.mustRun("plan", filepath.Join(s.dir, "large")); !strings.Contains(r.out, "No changes.") {
		t.Errorf("plan prints\n%s", r.out)
	}
	s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, "web"))
	s.mustRun("destroy", "--auto-approve")
}

// Who changes the table of sgc itself without an end is told of, and is left with
// what they made.
func TestApplyAgainstAWriterOfTheOwnTable(t *testing.T) {
	requireNft(t)
	s := newStage(t, true)
	s.write("web/web.hcl", webPolicy)
	s.write("db/db.hcl", dbPolicy)
	s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, "web"))
	before := s.table()
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		var out bytes.Buffer
		script := "while [ ! -e " + filepath.Join(s.dir, "stop") + " ]; do nft 'add chain inet sgc mine; delete chain inet sgc mine' || exit 1; done"
		if s.shell(script, os.Environ(), nil, &out, &out) != 0 {
			t.Errorf("nft: %s", &out)
		}
		close(stop)
	})
	r := s.sgc(context.Background(), nil, "apply", "--auto-approve", filepath.Join(s.dir, "db"))
	s.write("stop", "")
	<-stop
	writer.Wait()
	switch {
	case r.code == 0:
		t.Log("apply came between")
		if s.table() == before {
			t.Error("apply says that it changed something, and did not")
		}
	case !strings.Contains(r.err, "another program keeps changing"):
		t.Errorf("exit %d, %q", r.code, r.err)
	default:
		if after := s.table(); after != before {
			t.Errorf("the table is\n%s", after)
		}
	}
}

func TestOneApplyAtATime(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	_, dir := s.open()
	lock, err := dir.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"apply", "destroy"} {
		args := []string{command, "--auto-approve", "--lock-timeout=100ms"}
		if command == "apply" {
			args = append(args, s.dir)
		}
		r := s.sgc(context.Background(), nil, args...)
		if r.code != 1 || !strings.Contains(r.err, "another sgc is at work") || !strings.Contains(r.err, "Nothing was changed") {
			t.Errorf("%s: exit %d, %q", command, r.code, r.err)
		}
	}
	// Who only reads does not wait.
	s.mustRun("plan", s.dir)
	s.mustRun("status")
	// Who waits long enough comes through.
	var out, said bytes.Buffer
	streams := Streams{In: strings.NewReader(""), Out: &out, Err: writerFunc(func(b []byte) (int, error) {
		before := strings.Contains(said.String(), "Waiting up to 1m")
		said.Write(b)
		if !before && strings.Contains(said.String(), "Waiting up to 1m") {
			time.AfterFunc(200*time.Millisecond, func() {
				if err := lock.Unlock(); err != nil {
					t.Error(err)
				}
			})
		}
		return len(b), nil
	})}
	if code := Run(context.Background(), []string{"sgc", "apply", "--auto-approve", "--lock-timeout=1m", "--state-dir=" + s.state(), "--netns=" + s.ns.Path(), s.dir}, streams); code != 0 || !strings.Contains(said.String(), "Waiting up to 1m") {
		t.Errorf("apply: exit %d, %q", code, said.String())
	}
}

func TestTwoAppliesAtOnce(t *testing.T) {
	s := newStage(t, true)
	s.write("web/web.hcl", webPolicy)
	s.write("db/db.hcl", dbPolicy)
	var both sync.WaitGroup
	for _, name := range []string{"web", "db"} {
		both.Go(func() {
			for range 5 {
				if out, err := s.child("apply", "--auto-approve", "--lock-timeout=10m", filepath.Join(s.dir, name)).CombinedOutput(); err != nil {
					t.Errorf("apply %s: %v\n%s", name, err, out)
				}
			}
		})
	}
	both.Wait()
	if r := s.mustRun("status"); !strings.Contains(r.out, "drift\n  none\n") {
		t.Errorf("status prints %s", r.out)
	}
}

// Who reads while others apply sees one moment: never drift, never a table
// without its record.
func TestStatusDuringApplies(t *testing.T) {
	s := newStage(t, true)
	s.write("web/web.hcl", webPolicy)
	s.write("db/db.hcl", dbPolicy)
	s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, "db"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 20 {
			path := filepath.Join(s.dir, []string{"web", "db"}[i%2])
			if r := s.sgc(context.Background(), nil, "apply", "--auto-approve", path); r.code != 0 {
				t.Errorf("apply: %s", r.err)
			}
		}
	}()
	looks := 0
	for {
		select {
		case <-done:
			t.Logf("looked %d times", looks)
			return
		default:
		}
		looks++
		if r := s.mustRun("status"); !strings.Contains(r.out, "drift\n  none\n") {
			t.Errorf("status prints\n%s%s", r.out, r.err)
		}
	}
}

func TestInterrupt(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	ctx, cancel := context.WithCancel(context.Background())
	never, w := io.Pipe()
	defer w.Close()
	r := s.sgc(ctx, &typist{text: never, do: cancel}, "apply", s.dir)
	if r.code != 1 || !strings.Contains(r.err, "interrupted; nothing was changed") {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	k, dir := s.open()
	snapshot, err := k.Snapshot(context.Background(), nil)
	if err != nil || snapshot.Table != nil {
		t.Errorf("the kernel holds %v, %v", snapshot.Table, err)
	}
	for name, read := range map[string]func() (*apply.Record, error){"applied": dir.Applied, "pending": dir.Pending} {
		if r, err := read(); err != nil || r != nil {
			t.Errorf("there is a record, %s: %v, %v", name, r, err)
		}
	}
}
