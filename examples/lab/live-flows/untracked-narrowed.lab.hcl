title = "The rule is narrowed to the client's own address: its flows become tracked, and go on"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

host "office" {
  addresses = ["192.0.2.78/24", "2001:db8::78/64"]
}

policy "open to the world" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
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
  }
}

policy "the client alone" {
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
  }
}

step "the flows are untracked" {
  apply "open to the world" {}

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
  start "dns over IPv6" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    family   = "ipv6"
    port     = 53
  }
  start "ssh of the office" {
    protocol = "tcp"
    from     = "office"
    to       = "server"
    port     = 22
  }
  start "dns of the office" {
    protocol = "udp"
    from     = "office"
    to       = "server"
    port     = 53
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
  expect "dns" {
    traffic = "allowed"
    tracked = false
  }
  expect "dns over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh of the office" {
    traffic = "allowed"
    tracked = false
  }
  expect "dns of the office" {
    traffic = "allowed"
    tracked = false
  }
}

step "the rules are narrowed to the client: it goes on, tracked, and the office is cut" {
  apply "the client alone" {}
  wait "15s" {}

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
  expect "dns over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh of the office" {
    traffic = "cut"
    tracked = false
  }
  expect "dns of the office" {
    traffic = "cut"
    tracked = false
  }
}

step "the rules are gone: what is tracked goes on, as tracked flows do" {
  apply "nobody" {}
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
  expect "dns over IPv6" {
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
}
