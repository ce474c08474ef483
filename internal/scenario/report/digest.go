package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"sgc/internal/scenario"
)

// Digest identifies what was played: the scenario's file and those of its
// policies, wherever they lie together. It says nothing of lists of addresses
// that policies read from files, nor of the speed.
func Digest(s *scenario.Scenario) string {
	texts := map[string][]byte{}
	add := func(name string, text []byte) {
		relative, err := filepath.Rel(filepath.Dir(s.File), name)
		if err != nil {
			// One is absolute, the other is not.
			relative = name
		}
		texts[filepath.ToSlash(relative)] = text
	}
	for name, f := range s.Texts {
		add(name, f.Bytes)
	}
	for _, p := range s.Policies {
		for name, f := range p.Loaded.Files {
			add(name, f.Bytes)
		}
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		fmt.Fprintf(h, "%s %d\n", name, len(texts[name]))
		h.Write(texts[name])
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// digestIntro stands before the digest in a picture's metadata.
const digestIntro = "sgc lab scenario "

// DigestIn returns the digest of the scenario that an SVG picture is of.
func DigestIn(svg io.Reader) (string, error) {
	for d := xml.NewDecoder(svg); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return "", errors.New("the picture does not say what scenario it is of")
		}
		if err != nil {
			return "", err
		}
		if text, ok := token.(xml.CharData); ok {
			if digest, ok := strings.CutPrefix(strings.TrimSpace(string(text)), digestIntro); ok {
				return digest, nil
			}
		}
	}
}
