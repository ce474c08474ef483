package scenario

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// whole is a scenario with every attribute of every block.
const whole = `title = "all there is"
speed = 2

locals {
  port = 8080
}

network "wan" {
  mtu = 1400
}

host "server" {
  managed    = true
  forward    = true
  masquerade = ["eth0"]
  interface "eth0" {
    network   = "wan"
    addresses = ["192.0.2.10/24"]
  }
  interface "docker0" {
    network   = "containers"
    addresses = ["172.17.0.1/24"]
  }
  publish {
    interface = "eth0"
    protocol  = "tcp"
    port      = local.port
    to        = "172.17.0.2:80"
  }
  route {
    to  = "203.0.113.0/24"
    via = "192.0.2.77"
  }
}

host "container" {
  interface "eth0" {
    network   = "containers"
    addresses = ["172.17.0.2/24"]
  }
}

host "client" {
  forward = true
  interface "eth0" {
    network   = "wan"
    addresses = ["192.0.2.77/24"]
  }
}

host "near" {
  addresses = ["198.51.100.1/24"]
}

host "far" {
  addresses = ["198.51.100.2/24"]
}

policy "p" {
  security_group "web" {
    ingress "http" {
      protocol    = "tcp"
      ports       = [80]
      cidr_blocks = ["0.0.0.0/0"]
    }
  }
  interface "eth0" {
    security_groups = [security_group.web]
  }
}

step "one" {
  description = "everything"
  apply "p" {
    flush = "cloud"
    hold  = true
  }
  start "web" {
    protocol     = "tcp"
    from         = "client"
    to           = "server"
    reaches      = "container"
    family       = "ipv4"
    source       = host.client.ipv4
    destination  = host.server.ipv4
    port         = local.port
    reaches_port = 80
    source_port  = 4000
    interval     = "100ms"
    count        = 10
    size         = 100
    sends        = "both"
  }
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    id       = 7
  }
  start "message" {
    protocol  = "icmp"
    from      = "client"
    to        = "server"
    icmp_type = 13
    icmp_code = 0
    hop_limit = 1
  }
  wait {
    flow   = "web"
    sent   = 1
    passed = 1
    over   = "step"
  }
  wait "1s" {
    real = true
  }
  check "another" {
    protocol     = "tcp"
    from         = "client"
    to           = "server"
    reaches      = "container"
    family       = "ipv4"
    source       = "192.0.2.77"
    destination  = "192.0.2.10"
    port         = 8080
    reaches_port = 80
    source_port  = 4001
    size         = 100
    sends        = "both"
    traffic      = "allowed"
    tracked      = true
  }
  check "another ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    id       = "new"
    traffic  = "allowed"
  }
  check "another message" {
    protocol  = "icmp"
    from      = "client"
    to        = "server"
    icmp_type = 13
    icmp_code = 0
    hop_limit = 1
    traffic   = "refused"
  }
  fill {
    leave = 1
  }
  drain {}
  stop "ping" {}
  expect "web" {
    traffic      = "survives"
    lost         = 1
    over         = "flow"
    tracked      = true
    timeout      = "5d"
    sent         = 1
    passed       = 1
    first_passed = 1
    within       = "1s"
  }
  counter "security_group.web.ingress.http" {
    packets = 1
  }
  counter "security_group.web.ingress.http" {
    at_least = 1
  }
  allowance {
    available = 1
    exceeded  = 0
  }
  allowance {
    exceeded_at_least = 1
  }
  destroy {
    hold = true
  }
}
`

// Whatever name of a whole scenario is misspelt, and whatever value is left out
// or null, a load says so or does without, and never panics.
func TestLoadOfTypos(t *testing.T) {
	if l := LoadText("whole.lab.hcl", []byte(whole)); l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	parsed, diags := hclsyntax.ParseConfig([]byte(whole), "whole.lab.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	names := map[string][]string{}
	var visit func(kind string, b *hclsyntax.Body)
	visit = func(kind string, b *hclsyntax.Body) {
		for _, a := range b.Attributes {
			names[kind] = append(names[kind], a.Name)
			if shapes[kind].free {
				continue
			}
			for _, typo := range typos(a.Name) {
				loadWith(t, a.NameRange, typo, true)
			}
			loadWith(t, a.Expr.Range(), "null", false)
			loadWith(t, a.Expr.Range(), "[]", false)
			loadWith(t, a.Expr.Range(), `"nothing of that kind"`, false)
			loadWith(t, a.SrcRange, "", false)
		}
		for _, inner := range b.Blocks {
			names[kind] = append(names[kind], inner.Type)
			if inner.Type == "policy" {
				continue // its inside is the policy language's
			}
			for _, typo := range typos(inner.Type) {
				loadWith(t, inner.TypeRange, typo, true)
			}
			for _, label := range inner.LabelRanges {
				loadWith(t, label, `"of nobody"`, false)
				loadWith(t, label, `""`, false)
				loadWith(t, label, "", false)
			}
			loadWith(t, inner.Range(), "", false)
			visit(inner.Type, inner.Body)
		}
	}
	visit("", parsed.Body.(*hclsyntax.Body))
	// What is new in the language belongs into the scenario above.
	for kind, s := range shapes {
		for _, name := range slices.Concat(s.attributes, s.blocks) {
			// A check with a count or an interval is an error.
			if !slices.Contains(names[kind], name) && !(kind == "check" && (name == "count" || name == "interval")) {
				t.Errorf("no block %q of the test has %q", kind, name)
			}
		}
	}
}

// typos returns slips of a name: two letters that change places, one too many,
// one too few.
func typos(name string) []string {
	out := []string{name + name[len(name)-1:], name[:len(name)-1], "x_" + name}
	if len(name) > 2 && name[1] != name[2] {
		out = append(out, name[:1]+name[2:3]+name[1:2]+name[3:])
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// loadWith loads the scenario with another text in a place, which is an error for
// sure, or may be one.
func loadWith(t *testing.T, at hcl.Range, text string, wrong bool) {
	t.Helper()
	changed := slices.Concat([]byte(whole)[:at.Start.Byte], []byte(text), []byte(whole)[at.End.Byte:])
	what := fmt.Sprintf("%q at line %d", text, at.Start.Line)
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("%s: %v", what, p)
		}
	}()
	l := LoadText("whole.lab.hcl", bytes.Clone(changed))
	if (l.Scenario == nil) != l.Report.Diagnostics.HasErrors() {
		t.Errorf("%s: scenario %v, errors %t", what, l.Scenario != nil, l.Report.Diagnostics.HasErrors())
	}
	if wrong && l.Scenario != nil {
		t.Errorf("%s is no error", what)
	}
	if l.Scenario == nil {
		return
	}
	for _, s := range l.Scenario.Steps {
		for _, a := range s.Actions {
			if b, ok := a.(*Begin); ok && (b.Flow.From == "" || b.Flow.To == "" || !b.Flow.Source.IsValid() || !b.Flow.ReachesAddress.IsValid()) {
				t.Errorf("%s: a flow from nowhere to nowhere: %+v", what, b.Flow)
			}
		}
	}
}
