title = "The first apply cuts nothing"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "first" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
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

step "before sgc, everything passes, and conntrack knows nothing" {
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
  start "telnet" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 23
  }
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
  start "http" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
  }
  wait "5s" {}

  expect "ssh" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "telnet" {
    traffic = "allowed"
    tracked = false
  }
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
  expect "http" {
    traffic = "allowed"
    tracked = false
  }
}

step "the first apply adopts the connections, whoever opened them and whoever sends next" {
  apply "first" {}
  wait "15s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "telnet" {
    traffic = "survives"
    tracked = true
  }
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
  expect "http" {
    traffic = "survives"
    tracked = false
  }
}

step "telnet goes on, although no rule would let it in; a new one is refused" {
  check "a new telnet" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 23
    traffic  = "refused"
  }

  wait "5s" {}

  expect "telnet" {
    traffic = "survives"
    tracked = true
  }
}

step "after a destroy, the next apply is a first one again" {
  destroy {}
  wait "5s" {}
  apply "first" {}
  wait "10s" {}

  expect "ssh" {
    traffic = "survives"
  }
  expect "ssh over IPv6" {
    traffic = "survives"
  }
  expect "telnet" {
    traffic = "survives"
  }
  expect "database" {
    traffic = "survives"
  }
  expect "database over IPv6" {
    traffic = "survives"
  }
  expect "time" {
    traffic = "survives"
  }
  expect "http" {
    traffic = "survives"
  }
}
