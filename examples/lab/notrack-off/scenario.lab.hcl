title = "notrack = \"off\": open flows have entries, and are cut all the same"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "open" {
  security_group "web" {
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
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
    notrack         = "off"
  }
}

policy "the client alone" {
  security_group "web" {
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "dns" {
      protocol         = "udp"
      ports            = [53]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    notrack         = "off"
  }
}

policy "nobody" {
  security_group "web" {
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    notrack         = "off"
  }
}

step "open to the world, with entries" {
  apply "open" {}

  start "http" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
  }
  start "http over IPv6" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    family   = "ipv6"
    port     = 80
  }
  start "dns" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
  }
  start "dns over IPv6" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    family   = "ipv6"
    port     = 53
  }
  wait "5s" {}

  expect "http" {
    traffic = "allowed"
    tracked = true
  }
  expect "http over IPv6" {
    traffic = "allowed"
    tracked = true
  }
  expect "dns" {
    traffic = "allowed"
    tracked = true
  }
  expect "dns over IPv6" {
    traffic = "allowed"
    tracked = true
  }
}

step "narrowed to the client: they go on" {
  apply "the client alone" {}
  wait "10s" {}

  expect "http" {
    traffic = "survives"
    tracked = true
  }
  expect "http over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "dns" {
    traffic = "survives"
    tracked = true
  }
  expect "dns over IPv6" {
    traffic = "survives"
    tracked = true
  }
}

step "open to the world again: they go on, and count as open from now on" {
  apply "open" {}
  wait "5s" {}

  expect "http" {
    traffic = "survives"
    tracked = true
  }
  expect "http over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "dns" {
    traffic = "survives"
    tracked = true
  }
  expect "dns over IPv6" {
    traffic = "survives"
    tracked = true
  }
}

step "the rules are gone: all are cut, entries or not" {
  apply "nobody" {}
  wait "10s" {}

  expect "http" {
    traffic = "cut"
    tracked = false
  }
  expect "http over IPv6" {
    traffic = "cut"
    tracked = false
  }
  expect "dns" {
    traffic = "cut"
    tracked = false
  }
  expect "dns over IPv6" {
    traffic = "cut"
    tracked = false
  }

  check "a new http" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
    traffic  = "refused"
  }
}
