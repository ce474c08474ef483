package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sgc/internal/lab/labtest"
)

// Who waits sees what has ended; programs get the order of the names.
func TestScenariosArePrintedAsTheyEnd(t *testing.T) {
	labtest.Require(t)
	dir := t.TempDir()
	fast := strings.Replace(pingScenario, "EXPECTED", "refused", 1)
	for name, text := range map[string]string{"a.lab.hcl": strings.Replace(fast, `wait "200ms"`, `wait "5s"`, 1), "b.lab.hcl": fast} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--parallel=2", dir)
	a, b := strings.Index(out, "a: "), strings.Index(out, "b: ")
	if code != exitOK || a < 0 || b < 0 || a < b {
		t.Errorf("exit %d\n%s%s", code, out, errout)
	}
	_, out, _ = runScenarios(t, context.Background(), "lab", "run", "--parallel=2", "--json", dir)
	var v struct {
		Scenarios []struct {
			Name string `json:"name"`
		} `json:"scenarios"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || len(v.Scenarios) != 2 || v.Scenarios[0].Name != "a" {
		t.Errorf("%v: %v", err, v)
	}
}
