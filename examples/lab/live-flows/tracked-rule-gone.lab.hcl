title = "A tracked flow outlives its rule, until it is idle for its timeout"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "the client may" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "dns" {
      protocol         = "udp"
      ports            = [53]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.77/32"]
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
      tcp_established_timeout = 60
      udp_stream_timeout      = 60
    }
  }

  host {
    conntrack {
      icmp_timeout = 60
    }
  }
}

policy "nobody may" {
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
      tcp_established_timeout = 60
      udp_stream_timeout      = 60
    }
  }

  host {
    conntrack {
      icmp_timeout = 60
    }
  }
}

step "flows of each kind run, and are tracked" {
  apply "the client may" {}

  start "ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
  }
  start "ssh over IPv6" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    family   = "ipv6"
    port     = 22
  }
  start "dns" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
  }
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
  }
  start "idle ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    interval = "100s"
  }
  start "idle dns" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
    interval = "100s"
    sends    = "from"
  }
  start "idle ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "100s"
  }
  # Linux takes UDP for a stream two seconds after its start, whatever the speed is.
  wait "25s" {}

  expect "ssh" {
    traffic = "allowed"
    tracked = true
    timeout = "60s"
  }
  expect "ssh over IPv6" {
    traffic = "allowed"
    tracked = true
    timeout = "60s"
  }
  expect "dns" {
    traffic = "allowed"
    tracked = true
    timeout = "60s"
  }
  expect "ping" {
    traffic = "allowed"
    tracked = true
  }
}

step "the rules are gone: what runs goes on, and nothing new is let in" {
  apply "nobody may" {}
  wait "10s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "dns" {
    traffic = "survives"
    tracked = true
  }
  expect "ping" {
    traffic = "survives"
    tracked = true
  }

  check "a new ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    traffic  = "refused"
  }
  check "a new dns" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
    traffic  = "refused"
  }
  check "a new ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    traffic  = "refused"
  }
}

step "what was idle for longer than its timeout does not come back" {
  wait {
    flow = "idle ssh"
    sent = 1
    over = "the rules are gone: what runs goes on, and nothing new is let in"
  }
  wait {
    flow = "idle dns"
    sent = 1
    over = "the rules are gone: what runs goes on, and nothing new is let in"
  }
  wait {
    flow = "idle ping"
    sent = 1
    over = "the rules are gone: what runs goes on, and nothing new is let in"
  }
  wait "10s" {}

  expect "idle ssh" {
    traffic = "cut"
    over    = "the rules are gone: what runs goes on, and nothing new is let in"
    tracked = false
  }
  expect "idle dns" {
    traffic = "cut"
    over    = "the rules are gone: what runs goes on, and nothing new is let in"
    tracked = false
  }
  expect "idle ping" {
    traffic = "cut"
    over    = "the rules are gone: what runs goes on, and nothing new is let in"
    tracked = false
  }
  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "dns" {
    traffic = "survives"
    tracked = true
  }
  expect "ping" {
    traffic = "survives"
    tracked = true
  }
}
