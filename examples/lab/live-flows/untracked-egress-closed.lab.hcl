title = "The open rule for the answers is gone: the flows become tracked, and go on"
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

policy "no egress" {
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
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

step "the flows are untracked" {
  apply "open both ways" {}

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
}

step "the egress rule is gone" {
  apply "no egress" {}
  wait "15s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "survives"
    tracked = true
  }
  # A datagram of the server that leaves before the client's next one has no flow
  # to belong to.
  expect "dns" {
    traffic = "survives"
    lost    = 2
    tracked = true
  }
  expect "dns over IPv6" {
    traffic = "survives"
    lost    = 2
    tracked = true
  }

  check "the server opens something" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 443
    traffic  = "refused"
  }
}
