title = "A port that is held after a cut is free when the UDP stream timeout is over"
# The port is held for 12 s here: longer than a slow machine takes to see the cut.
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "dns for the world" {
  security_group "web" {
    ingress "dns" {
      protocol         = "udp"
      ports            = [53]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    connection_tracking {
      udp_stream_timeout = 120
    }
  }
}

policy "no dns" {
  security_group "web" {
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    connection_tracking {
      udp_stream_timeout = 120
    }
  }
}

step "dns is untracked" {
  apply "dns for the world" {}

  start "dns" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
  }
  wait "5s" {}

  expect "dns" {
    traffic = "allowed"
    tracked = false
  }
}

step "the rule is gone: dns is cut" {
  apply "no dns" {}
  wait "5s" {}

  expect "dns" {
    traffic = "cut"
    tracked = false
  }

  stop "dns" {}
}

step "after 120 seconds the server may use its port 53 again, and nobody else may" {
  wait "130s" {}

  check "from port 53 to the client" {
    protocol    = "udp"
    from        = "server"
    to          = "client"
    source_port = 53
    port        = 5000
    traffic     = "allowed"
    tracked     = true
  }
  check "a new dns of the client" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
    traffic  = "refused"
  }
}
