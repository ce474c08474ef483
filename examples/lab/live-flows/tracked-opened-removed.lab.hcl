title = "A tracked flow becomes untracked, and is cut when its rule goes"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
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

step "the flows are tracked" {
  apply "the client alone" {}

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
  wait "5s" {}

  expect "ssh" {
    traffic = "allowed"
    tracked = true
  }
  expect "ssh over IPv6" {
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

step "the rules are opened to the world: the flows go on, and conntrack forgets them" {
  apply "open to the world" {}
  wait "10s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = false
  }
  expect "ssh over IPv6" {
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

step "the rules are gone: all are cut, which no tracked flow would be" {
  apply "nobody" {}
  wait "10s" {}

  expect "ssh" {
    traffic = "cut"
    tracked = false
  }
  expect "ssh over IPv6" {
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
}
