title = "What the host opened itself: the open rule for the answers is gone"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "open both ways" {
  security_group "web" {
    ingress "any" {
      protocol         = "-1"
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
  }
}

policy "no ingress" {
  security_group "web" {
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

step "the server's own flows are untracked, since everything may come in" {
  apply "open both ways" {}

  start "database" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 5432
  }
  start "database over IPv6" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    family   = "ipv6"
    port     = 5432
  }
  start "time" {
    protocol = "udp"
    from     = "server"
    to       = "client"
    port     = 123
  }
  start "ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
  }
  wait "5s" {}

  expect "database" {
    traffic = "allowed"
    tracked = false
  }
  expect "database over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "time" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh" {
    traffic = "allowed"
    tracked = false
  }
}

step "the ingress rule is gone: they go on, tracked, whoever sends next" {
  apply "no ingress" {}
  wait "15s" {}

  expect "database" {
    traffic = "survives"
    tracked = true
  }
  expect "database over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "time" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh" {
    traffic = "cut"
    tracked = false
  }

  check "the server opens something" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 443
    traffic  = "allowed"
    tracked  = true
  }
  check "the client opens something" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 443
    traffic  = "refused"
  }
}
