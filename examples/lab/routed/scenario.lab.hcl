title = "What the host routes is cut, narrowed and tracked as what ends on it"
speed = 10

host "router" {
  managed = true
  forward = true

  interface "eth0" {
    network   = "outside"
    addresses = ["192.0.2.1/24", "2001:db8::1/64"]
  }
  interface "eth1" {
    network   = "inside"
    addresses = ["198.51.100.1/24", "2001:db8:1::1/64"]
  }
}

host "client" {
  interface "eth0" {
    network   = "outside"
    addresses = ["192.0.2.77/24", "2001:db8::77/64"]
  }
}

host "server" {
  interface "eth0" {
    network   = "inside"
    addresses = ["198.51.100.10/24", "2001:db8:1::10/64"]
  }
}

policy "open to the world" {
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
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
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
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
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

step "open to the world, and kept in conntrack, since they are routed" {
  apply "open to the world" {}

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
  start "ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
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
  expect "ssh" {
    traffic = "allowed"
    tracked = true
  }
}

step "the rules are narrowed to the client: its flows go on" {
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
  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
}

step "open again" {
  apply "open to the world" {}
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
  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
}

step "all rules are gone: what was open is cut, what was tracked goes on" {
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
  expect "ssh" {
    traffic = "survives"
    tracked = true
  }

  check "a new http" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
    traffic  = "refused"
  }
  check "the server opens something" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 443
    traffic  = "allowed"
    tracked  = true
  }
}
