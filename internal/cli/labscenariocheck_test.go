package cli

import (
	"context"
	"strings"
	"testing"

	"sgc/internal/lab/labtest"
)

// A flow is not allowed that was refused before it was let through, such as by the
// host's own rules until they no longer hold its packets for answers.
func TestCheckIsNotMetAfterRefusals(t *testing.T) {
	labtest.Require(t)
	text := `
speed = 100

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "open" {
  security_group "web" {
    ingress "ntp" {
      protocol    = "udp"
      ports       = [123]
      cidr_blocks = ["0.0.0.0/0"]
    }
    egress "any" {
      protocol    = "-1"
      cidr_blocks = ["0.0.0.0/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

policy "narrow" {
  security_group "web" {
    ingress "ntp" {
      protocol    = "udp"
      ports       = [123]
      cidr_blocks = ["192.0.2.78/32"]
    }
    egress "any" {
      protocol    = "-1"
      cidr_blocks = ["0.0.0.0/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

step "a" {
  apply "open" {}
  start "ntp" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 123
  }
  wait "50s" {}
}

step "b" {
  apply "narrow" {}
  stop "ntp" {}
  check "held back" {
    protocol    = "udp"
    from        = "server"
    to          = "client"
    port        = 9999
    source_port = 123
    traffic     = "allowed"
  }
}
`
	file := writeScenario(t, "held.lab.hcl", text)
	code, out, errout := runScenarios(t, context.Background(), "lab", "run", file)
	if code != exitDifferent || !strings.Contains(out, "refused by the sender's own rules") || strings.Count(errout, "Not as expected") != 1 {
		t.Errorf("exit %d\n%s%s", code, out, errout)
	}
}
