package report

import (
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
	"time"

	"sgc/internal/scenario"
)

// covered returns the intervals of x that a path of marks draws at. A mark covers
// what its first move and half its size say.
func covered(t *testing.T, data string) [][2]float64 {
	t.Helper()
	var out [][2]float64
	x := math.NaN()
	for _, m := range regexp.MustCompile(`([MHVlmahvz])([-0-9. ]*)`).FindAllStringSubmatch(data, -1) {
		var n []float64
		for _, s := range regexp.MustCompile(`-?[0-9.]+`).FindAllString(m[2], -1) {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				t.Fatal(err)
			}
			n = append(n, v)
		}
		switch m[1] {
		case "M":
			x = n[0]
		case "H":
			out = append(out, [2]float64{min(x, n[0]), max(x, n[0])})
			x = n[0]
		case "l", "h":
			out = append(out, [2]float64{min(x, x+n[0]), max(x, x+n[0])})
			x += n[0]
		case "m":
			x += n[0]
		}
	}
	return out
}

// However many packets there are, the place of each lost one is drawn upon, and
// the picture stays small.
func TestNoLostPacketIsLeftOut(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	for _, rate := range []float64{0, 0.0005, 0.01, 0.3, 1} {
		l := scenario.Lane{Name: "much"}
		for i := range 20000 {
			p := scenario.Packet{Seq: i + 1, Sent: time.Duration(i) * ms / 4}
			if r.Float64() >= rate {
				p.Arrived = p.Sent + 1
			}
			l.Packets = append(l.Packets, p)
		}
		x := scale{5 * time.Second}
		ticks := ticksOf(&l, scenario.Opener, 20, x)
		at := covered(t, ticks.paths[lost].String())
		for i := range l.Packets {
			if p := &l.Packets[i]; p.Arrived == 0 {
				place, found := x.at(p.Sent), false
				for _, c := range at {
					found = found || c[0] <= place && place <= c[1]
				}
				if !found {
					t.Fatalf("seed %d, rate %g: nothing is drawn at %g for packet %d", seed, rate, place, p.Seq)
				}
			}
		}
		if rate == 0 && len(at) > 0 {
			t.Error("a lost packet is drawn where there is none")
		}
		size := 0
		for k := range ticks.paths {
			size += ticks.paths[k].Len()
		}
		if size > 12<<10 {
			t.Errorf("rate %g: %d bytes for a lane", rate, size)
		}
		if !ticks.merged {
			t.Error("the picture does not say that marks stand for several packets")
		}
	}
}

// Ticks side by side are a bar; those apart are not.
func TestTicksBecomeBars(t *testing.T) {
	l := scenario.Lane{}
	every(&l, scenario.Opener, 0, 100*ms, ms, hear)
	every(&l, scenario.Opener, 500*ms, 501*ms, ms, hear)
	ticks := ticksOf(&l, scenario.Opener, 20, scale{time.Second})
	end := number(scale{time.Second}.at(99*ms) - plotLeft)
	want := "M" + number(plotLeft) + " 20v-11h" + end + "v11zM" + number(scale{time.Second}.at(500*ms)) + " 20v-11"
	if got := ticks.paths[passed].String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Each kind has a shape of its own.
func TestKindsHaveShapes(t *testing.T) {
	shapes := map[string]kind{}
	for k := range kinds {
		if k == pending {
			continue
		}
		d := &drawing{}
		d.sample(k, 0, 0)
		shape := regexp.MustCompile(`d="[^"]*"`).FindString(d.b.String())
		if other, ok := shapes[shape]; ok || shape == "" {
			t.Errorf("%s is drawn as %s: %s", words[k], words[other], shape)
		}
		shapes[shape] = k
	}
	texts := map[string]kind{}
	for k, g := range glyphs {
		if other, ok := texts[g.text]; ok && !(kind(k) == opened && other == passed) {
			t.Errorf("%s is written as %s: %s", words[k], words[other], g.text)
		}
		texts[g.text] = kind(k)
	}
}

// Every colour of a text or mark stands out from its ground, light and dark.
//
// Source: W3C, Web Content Accessibility Guidelines 2.1, contrast ratio.
func TestColoursHaveContrast(t *testing.T) {
	luminance := func(c string) float64 {
		sum := 0.0
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			n, err := strconv.ParseUint(c[1+2*i:3+2*i], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			v := float64(n) / 255
			if v <= 0.03928 {
				v /= 12.92
			} else {
				v = math.Pow((v+0.055)/1.055, 2.4)
			}
			sum += weight * v
		}
		return sum
	}
	contrast := func(a, b string) float64 {
		x, y := luminance(a), luminance(b)
		return (max(x, y) + 0.05) / (min(x, y) + 0.05)
	}
	for _, c := range []colour{ink, faint, blue, red, amber, purple, green} {
		if got := contrast(c.light, ground.light); got < 4.5 {
			t.Errorf("%s on white: %.2f", c.light, got)
		}
		if got := contrast(c.dark, ground.dark); got < 4.5 {
			t.Errorf("%s on black: %.2f", c.dark, got)
		}
	}
}
