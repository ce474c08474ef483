package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// Version is the release; builds may set it with -ldflags -X.
var Version = "0.1.0-dev"

func (s *session) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "show the version",
		Action: func(c *cli.Context) error {
			if err := none(c); err != nil {
				return err
			}
			return s.version()
		},
	}
}

// versionView is the JSON form of version.
type versionView struct {
	FormatVersion int    `json:"format_version"`
	Version       string `json:"version"`
	// Revision is the commit that the binary was built from, where known.
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (s *session) version() error {
	v := versionView{
		FormatVersion: formatVersion, Version: Version, Revision: revision(),
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if s.JSON {
		return s.writeJSON(v)
	}
	from := ""
	if v.Revision != "" {
		from = v.Revision + ", "
	}
	_, err := fmt.Fprintf(s.Out, "sgc %s (%s%s, %s)\n", v.Version, from, v.Go, v.Platform)
	return err
}

// versionText names the program that runs: release and commit.
func versionText() string {
	if r := revision(); r != "" {
		return Version + " " + r
	}
	return Version
}

// revision returns the first twelve digits of the commit that the binary was
// built from, with "+dirty" where the tree had changes, or "".
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}
