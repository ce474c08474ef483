// Command imports holds the packages of this module to the import rules of
// the design: data flows one way, and each kernel interface has one door.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const module = "sgc"

// allowed says which packages of this module a package may import, by path
// below the module. Every package must have a line.
var allowed = map[string][]string{
	"":                         {"internal/cli"},
	"internal/flow":            {},
	"internal/ruleset":         {"internal/flow"},
	"internal/nftvm":           {"internal/ruleset", "internal/flow"},
	"internal/corpus":          {"policies", "internal/flow"},
	"internal/links":           {},
	"internal/nflog":           {"internal/flow", "internal/netns"},
	"internal/nlmsg":           {},
	"internal/netns":           {},
	"internal/lab":             {"internal/flow", "internal/netns", "internal/nflog"},
	"internal/lab/labtest":     {"internal/lab", "internal/flow"},
	"internal/scenario":        {"policies", "internal/flow", "internal/lab", "internal/regular"},
	"internal/scenario/report": {"internal/scenario"},
	"internal/kerneltest":      {},
	"internal/livetest":        {},
	"internal/regular":         {},
	"policies":                 {"internal/flow", "internal/regular"},
	"compile":                  {"policies", "internal/flow", "internal/ruleset"},
	"apply":                    {"internal/ruleset", "internal/flow", "internal/netns", "internal/nlmsg"},
	"conntrack":                {"policies", "internal/flow", "internal/netns", "internal/nlmsg"},
	"internal/cli":             {"*"},
}

// doors are the libraries that only some packages may import.
var doors = map[string][]string{
	// The lab observes packets with a table of its own, in namespaces of its own.
	"github.com/google/nftables":  {"internal/ruleset", "internal/nftvm", "apply", "internal/lab", "internal/lab/labtest"},
	"github.com/mdlayher/netlink": {"apply", "conntrack", "internal/nflog", "internal/lab"},
	"github.com/ti-mo/conntrack":  {"conntrack", "internal/lab"},
	"github.com/hashicorp/hcl":    {"policies", "internal/scenario", "internal/cli"},
	"github.com/zclconf/go-cty":   {"policies", "internal/scenario"},
	"github.com/urfave/cli":       {"internal/cli"},
	// Namespaces are found and entered in internal/netns.
	"github.com/vishvananda/netns": {},
	// Only reading: nothing of sgc but the lab makes or changes interfaces.
	"github.com/vishvananda/netlink": {"internal/lab", "internal/links"},
	"testing":                        {"internal/lab/labtest"},
}

func main() {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "imports: list packages:", err)
		os.Exit(1)
	}
	bad := 0
	report := func(format string, args ...any) {
		bad++
		fmt.Fprintf(os.Stderr, "imports: "+format+"\n", args...)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "imports: read the list of packages:", err)
			os.Exit(1)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		may, known := allowed[name]
		if !known {
			report("package %q has no line in .ci/imports/main.go", name)
			continue
		}
		for _, i := range p.Imports {
			own, isOwn := strings.CutPrefix(i, module+"/")
			if isOwn && !slices.Contains(may, "*") && !slices.Contains(may, own) {
				report("%s imports %s, which the design does not allow", name, own)
			}
			for door, who := range doors {
				if (i == door || strings.HasPrefix(i, door+"/")) && !slices.Contains(who, name) {
					report("%s imports %s; only %s may", name, i, strings.Join(who, ", "))
				}
			}
		}
	}
	if bad > 0 {
		os.Exit(1)
	}
}
