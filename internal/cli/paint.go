package cli

// paint colours text for a terminal; the zero value leaves it alone.
type paint struct{ on bool }

func (p paint) wrap(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) red(s string) string    { return p.wrap("31", s) }
func (p paint) green(s string) string  { return p.wrap("32", s) }
func (p paint) yellow(s string) string { return p.wrap("33", s) }

// error colours the word that begins an error message.
func (p paint) error(s string) string { return p.wrap("1;31", s) }
func (p paint) bold(s string) string  { return p.wrap("1", s) }
func (p paint) dim(s string) string   { return p.wrap("2", s) }

// outPaint colours standard output, errPaint standard error.
func (s *session) outPaint() paint { return paint{s.OutTerminal && s.colour()} }
func (s *session) errPaint() paint { return paint{s.ErrTerminal && s.colour()} }

// colour reports whether the user lets sgc colour what a terminal shows.
// Source: no-color.org, any value that is not empty.
func (s *session) colour() bool {
	return !s.NoColor && s.lookup("NO_COLOR") == "" && s.lookup("TERM") != "dumb"
}
