package apply

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"sgc/internal/ruleset"
)

// memoryFile holds a Memory.
const memoryFile = "memory.json"

// Memory says that the kernel held a table when nf_tables had an identity. It
// names the table by its fingerprint, so that whoever has a table at hand can
// tell whether it is that one, whichever sgc made it. The zero value remembers
// nothing.
type Memory struct {
	Identity string `json:"identity"`
	Table    string `json:"table"`
}

// Remember writes down that the kernel holds the table, and nothing else in
// table inet sgc, while nf_tables has the identity. An empty identity forgets.
func (d *Dir) Remember(identity string, table *ruleset.Table) error {
	if identity == "" {
		if err := d.remove(memoryFile); err != nil {
			return fmt.Errorf("forget what the kernel holds: %w", explainFile(err))
		}
		return nil
	}
	b, err := json.Marshal(Memory{identity, Fingerprint(table)})
	if err == nil {
		// What is lost when the machine goes down is of no use after that.
		err = d.replace(memoryFile, b, false)
	}
	if err != nil {
		return fmt.Errorf("remember what the kernel holds: %w", explainFile(err))
	}
	return nil
}

// Recall returns what was remembered last. A file that is damaged is as good as
// none: what is not remembered is read from the kernel.
func (d *Dir) Recall() (Memory, error) {
	var m Memory
	b, err := os.ReadFile(d.file(memoryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("read the state directory: %w", explainFile(err))
	}
	if json.Unmarshal(b, &m) != nil {
		return Memory{}, nil
	}
	return m, nil
}

// Fingerprint names a table by all that it holds: "sha256:" and hexadecimal
// digits.
func Fingerprint(t *ruleset.Table) string {
	sum := sha256.New()
	w := bufio.NewWriterSize(sum, 64<<10)
	// Every text has its length before it, so that no two tables are written
	// alike. Writing to a hash does not fail.
	text := func(s string) {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(s)))
		w.Write(length[:])
		w.WriteString(s)
	}
	text(t.Name)
	text(t.Comment)
	for _, o := range t.Timeouts {
		text("timeout")
		text(o.String())
	}
	for _, c := range t.Chains {
		text("chain")
		text(wantedChainText(c))
		for _, r := range c.Rules {
			text(r.Text())
		}
	}
	for _, s := range t.Sets {
		fingerprintSet(s, text, w)
	}
	w.Flush()
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// fingerprintSet writes a set; keys of a set are of one length.
func fingerprintSet(s *ruleset.Set, text func(string), w io.StringWriter) {
	text("set")
	text(wantedSetText(s))
	verdicts := map[ruleset.Verdict]string{}
	for i := range s.Elements {
		e := &s.Elements[i]
		w.WriteString(e.First)
		w.WriteString(e.Last)
		if e.Verdict == nil {
			continue
		}
		v, ok := verdicts[*e.Verdict]
		if !ok {
			v = fmt.Sprintf("%d %s", e.Verdict.Kind, e.Verdict.Chain)
			verdicts[*e.Verdict] = v
		}
		text(v)
	}
}
