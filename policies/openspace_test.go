package policies

import (
	"strings"
	"testing"

	"sgc/internal/flow"
)

func TestOpenInterfaces(t *testing.T) {
	p := mustLoad(t, `
security_group "web" {
  ingress {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
security_group "out" {
  egress {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
security_group "out6" {
  egress {
    protocol         = "udp"
    ports            = ["0-65535"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
security_group "office" {
  ingress {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["203.0.113.0/24", "0.0.0.0/1", "128.0.0.0/1"]
  }
}
security_group "client" {
  ingress {
    protocol    = "udp"
    ports       = ["0-65535"]
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress {
    protocol    = "udp"
    ports       = [53]
    cidr_blocks = ["0.0.0.0/0"]
  }
}
interface "answers4" { security_groups = ["web", "out"] }
interface "udponly" { security_groups = ["web", "out6"] }
interface "halves" { security_groups = ["office", "out"] }
interface "mirror" { security_groups = ["client"] }
interface "oneway" { security_groups = ["web"] }
interface "taken" {
  security_groups = ["web", "out"]
  always_track { cidr_blocks = ["0.0.0.0/1", "128.0.0.0/1"] }
}
interface "part" {
  security_groups = ["web", "out"]
  notrack         = "off"
  always_track { cidr_blocks = ["10.0.0.0/8"] }
}
interface "w*" { security_groups = ["web", "out", "out6"] }
interface "none" { security_groups = [] }
`)
	for f, want := range map[flow.Family]string{flow.IPv4: "answers4 mirror part w*", flow.IPv6: ""} {
		var got []string
		for _, i := range p.OpenInterfaces(f) {
			got = append(got, i.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", f, got, want)
		}
	}
}
