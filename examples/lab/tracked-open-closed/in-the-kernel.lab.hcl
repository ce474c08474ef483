title = "Tracked, open, closed: on a host where nothing needs conntrack"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "closed egress" {
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
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

policy "open both ways" {
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
  }
}

policy "closed" {
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

step "tracked: everybody may come in, and nothing else lets the answers out" {
  apply "closed egress" {}

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

step "open: an egress rule lets everything out" {
  apply "open both ways" {}
  wait "10s" {}

  expect "http" {
    traffic = "survives"
    tracked = false
  }
  expect "http over IPv6" {
    traffic = "survives"
    tracked = false
  }
  expect "dns" {
    traffic = "survives"
    tracked = false
  }
  expect "dns over IPv6" {
    traffic = "survives"
    tracked = false
  }
}

step "closed: the ingress rules are gone, and the flows are cut" {
  apply "closed" {}
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
  check "the server opens something" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 443
    traffic  = "allowed"
    tracked  = true
  }
}
