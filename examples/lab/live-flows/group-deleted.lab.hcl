title = "A group that is detached leaves its flows alone; one that is deleted cuts them"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "both groups" {
  security_group "base" {
    ingress "database" {
      protocol         = "tcp"
      ports            = [5432]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  security_group "admin" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "database" {
      protocol         = "tcp"
      ports            = [5432]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.77/32"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.base, security_group.admin]
  }
}

policy "admin detached" {
  security_group "base" {
    ingress "database" {
      protocol         = "tcp"
      ports            = [5432]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  security_group "admin" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "database" {
      protocol         = "tcp"
      ports            = [5432]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.77/32"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.base]
  }
}

policy "admin deleted" {
  security_group "base" {
    ingress "database" {
      protocol         = "tcp"
      ports            = [5432]
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
    security_groups = [security_group.base]
  }
}

step "flows that the group admin allows, and one that base allows, too" {
  apply "both groups" {}

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
  start "database" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 5432
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
  expect "database" {
    traffic = "allowed"
    tracked = true
  }
}

step "admin is detached from the interface: all go on" {
  apply "admin detached" {}
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
  expect "database" {
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

step "admin is deleted: what only it had allowed is cut" {
  apply "admin deleted" {}
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
  expect "database" {
    traffic = "survives"
    tracked = true
  }
}
