package policies

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
)

const day = 24 * time.Hour

// maxIdle is the longest idle timeout that the language allows, the cloud's.
const maxIdle = 5 * day

var durationForm = regexp.MustCompile(`^(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?$`)

// duration reads a time in whole seconds, which lies between two others: a
// number of seconds, or text such as "350s", "5m", "1h30m" or "5d".
func (d *decoder) duration(name string, least, most time.Duration) field[time.Duration] {
	v := d.value(name)
	f := typed[time.Duration](v)
	if !f.set {
		return f
	}
	seconds, problem := secondsOf(v.val)
	switch {
	case problem != "":
		fail(d, &f, "Invalid time", fmt.Sprintf(`%s is a number of seconds, or text such as "350s", "5m", "1h30m" or "5d", not %s.`, name, problem))
	case seconds.Cmp(big.NewInt(int64(least/time.Second))) < 0 || seconds.Cmp(big.NewInt(int64(most/time.Second))) > 0:
		fail(d, &f, "Out of range", fmt.Sprintf("%s is from %s to %s, not %s.", name, timeText(least), timeText(most), secondsText(seconds)))
	default:
		f.val = time.Duration(seconds.Int64()) * time.Second
	}
	return f
}

// secondsOf returns a value as seconds, or the words for what it is instead.
// The number may be of any size.
func secondsOf(v value) (*big.Int, string) {
	if v.Type() != cty.String {
		return integer(v)
	}
	s := strings.TrimSpace(v.AsString())
	if n, ok := new(big.Int).SetString(s, 10); ok {
		return n, ""
	}
	parts := durationForm.FindStringSubmatch(s)
	if parts == nil || s == "" {
		return nil, quoteShort(s)
	}
	total := new(big.Int)
	for i, unit := range []time.Duration{day, time.Hour, time.Minute, time.Second} {
		if parts[i+1] == "" {
			continue
		}
		n, _ := new(big.Int).SetString(parts[i+1], 10)
		total.Add(total, n.Mul(n, big.NewInt(int64(unit/time.Second))))
	}
	return total, ""
}

// timeText writes a time as the language has it, with the seconds.
func timeText(d time.Duration) string { return secondsText(big.NewInt(int64(d / time.Second))) }

func secondsText(n *big.Int) string {
	s := " seconds"
	if n.IsInt64() && n.Int64() == 1 {
		s = " second"
	}
	out := n.String() + s
	if n.IsInt64() && n.Int64() > 0 && n.Int64()%86400 == 0 {
		out += fmt.Sprintf(" (%dd)", n.Int64()/86400)
	}
	return out
}
