package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sgc/internal/lab/labtest"
)

// Who waits sees what has ended; programs get the order of the names.
func TestScenariosArePrintedAsTheyEnd(t *testing.T) {
	labtest.Require(t)
	fast := pingScenarioOf("refused")
	scenarios := func(wait string) (dir string) {
		dir = t.TempDir()
		for name, text := range map[string]string{"a.lab.hcl": strings.Replace(fast, `wait "200ms"`, `wait "`+wait+`"`, 1), "b.lab.hcl": fast} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	// The first one does not end by itself.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var out, errout bytes.Buffer
	code := Run(ctx, []string{"sgc", "lab", "run", "--parallel=2", scenarios("1h")}, Streams{
		In: strings.NewReader(""), Err: &errout, Environ: os.Environ(),
		Out: writerFunc(func(b []byte) (int, error) {
			defer cancel()
			return out.Write(b)
		}),
	})
	if code != exitError || errout.String() != "Error: interrupted; nothing was changed\n" || !strings.HasPrefix(out.String(), "b: ") || strings.Contains(out.String(), "a: ") {
		t.Errorf("exit %d\n%s%s", code, out.String(), errout.String())
	}
	code, text, problems := runScenarios(t, context.Background(), "lab", "run", "--parallel=2", "--json", scenarios("2s"))
	var v struct {
		Scenarios []struct {
			Name string `json:"name"`
		} `json:"scenarios"`
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil || code != exitOK || len(v.Scenarios) != 2 || v.Scenarios[0].Name != "a" {
		t.Errorf("exit %d, %v: %v\n%s", code, err, v, problems)
	}
}
