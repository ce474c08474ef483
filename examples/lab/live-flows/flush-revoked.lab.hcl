title = "With --flush revoked, tracked flows that no rule allows any more are cut as well"
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

policy "client and office" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.77/32", "192.0.2.78/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128", "2001:db8::78/128"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.77/32", "192.0.2.78/32"]
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

policy "the office alone" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.78/32"]
      ipv6_cidr_blocks = ["2001:db8::78/128"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.78/32"]
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

step "tracked flows of both" {
  apply "client and office" {}

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
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
  }
  start "ssh of the office" {
    protocol = "tcp"
    from     = "office"
    to       = "server"
    port     = 22
  }
  start "ping of the office" {
    protocol = "icmp"
    from     = "office"
    to       = "server"
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
  expect "ping" {
    traffic = "allowed"
    tracked = true
  }
  expect "ssh of the office" {
    traffic = "allowed"
    tracked = true
  }
  expect "ping of the office" {
    traffic = "allowed"
    tracked = true
  }
}

step "the client's rule goes as usual: its flows go on" {
  apply "the office alone" {}
  wait "5s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "ping" {
    traffic = "survives"
    tracked = true
  }
}

step "the same policy once more, with --flush revoked: now they are cut, and the office's are not" {
  apply "the office alone" {
    flush = "revoked"
  }
  wait "10s" {}

  expect "ssh" {
    traffic = "cut"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "cut"
    tracked = false
  }
  expect "ping" {
    traffic = "cut"
    tracked = false
  }
  expect "ssh of the office" {
    traffic = "survives"
    tracked = true
  }
  expect "ping of the office" {
    traffic = "survives"
    tracked = true
  }
}
