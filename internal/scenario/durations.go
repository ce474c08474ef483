package scenario

import (
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// duration reads a time: a number of seconds, or text such as "500ms", "30s",
// "5m" or "5d".
func (r *reader) duration(name string, least, most time.Duration) (time.Duration, bool) {
	v, ok := r.value(name)
	if !ok {
		return 0, false
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil {
		r.wrong(name, `a time, such as "500ms", "30s" or "5m"`, v)
		return 0, false
	}
	return r.l.durationText(s.AsString(), name, r.place(name), least, most)
}

func (l *loader) durationText(text, name string, at hcl.Range, least, most time.Duration) (time.Duration, bool) {
	d, ok := parseDuration(text)
	switch {
	case !ok:
		l.errorAt(at, "Invalid time", `%s is a time from %s to %s, such as "500ms", "30s" or "5m", not %q.`, name, brief(least), brief(most), text)
	case d < least || d > most:
		l.errorAt(at, "Out of range", "%s is from %s to %s, not %s.", name, brief(least), brief(most), text)
	default:
		return d, true
	}
	return 0, false
}

// parseDuration reads a time. A number without a unit is seconds.
func parseDuration(s string) (time.Duration, bool) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "0", s
	}
	n, ok := new(big.Int).SetString(days, 10)
	if !ok || !n.IsInt64() || n.Int64() < 0 || n.Int64() > 10000 {
		return 0, false
	}
	d := time.Duration(n.Int64()) * 24 * time.Hour
	if rest == "" && found {
		return d, true
	}
	more, err := time.ParseDuration(rest)
	if err != nil {
		if more, err = time.ParseDuration(rest + "s"); err != nil {
			return 0, false
		}
	}
	return d + more, more >= 0
}

// brief writes a time without zeros at its end: 5m, not 5m0s.
func brief(d time.Duration) string {
	if d > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return strings.TrimSuffix(s, "h0m") + map[bool]string{true: "h"}[strings.HasSuffix(s, "h0m")]
}
