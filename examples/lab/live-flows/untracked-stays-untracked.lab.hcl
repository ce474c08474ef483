title = "An untracked flow goes on where the new policy also allows it as untracked"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
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

policy "other rules, just as open" {
  security_group "web" {
    ingress "tcp" {
      protocol         = "tcp"
      ports            = ["0-1023"]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  security_group "names" {
    ingress "dns" {
      protocol         = "udp"
      ports            = [53]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web, security_group.names]
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

step "other rules of other groups allow them: not a packet is lost" {
  apply "other rules, just as open" {}
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

step "and back" {
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
