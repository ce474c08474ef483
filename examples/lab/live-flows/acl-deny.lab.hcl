title = "A network ACL denies a peer, and heals"

# TCP sends again what was lost at its own pace, which no speed changes.
speed = 5

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "allowed" {
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
    ingress "dns" {
      protocol         = "udp"
      ports            = [53]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.77/32"]
    }
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  network_acl "edge" {
    ingress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
    ingress {
      rule_no         = 101
      action          = "allow"
      protocol        = "-1"
      ipv6_cidr_block = "::/0"
    }
    egress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
    egress {
      rule_no         = 101
      action          = "allow"
      protocol        = "-1"
      ipv6_cidr_block = "::/0"
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    network_acl     = network_acl.edge
  }

  host {
    conntrack {
      icmp_timeout = 300 # the entry outlives the time in which nothing passes
    }
  }
}

policy "the client denied" {
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
    ingress "dns" {
      protocol         = "udp"
      ports            = [53]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.77/32"]
    }
    egress "any" {
      protocol         = "-1"
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  network_acl "edge" {
    ingress {
      rule_no    = 90
      action     = "deny"
      protocol   = "-1"
      cidr_block = "192.0.2.77/32"
    }
    ingress {
      rule_no         = 91
      action          = "deny"
      protocol        = "-1"
      ipv6_cidr_block = "2001:db8::77/128"
    }
    ingress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
    ingress {
      rule_no         = 101
      action          = "allow"
      protocol        = "-1"
      ipv6_cidr_block = "::/0"
    }
    egress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
    egress {
      rule_no         = 101
      action          = "allow"
      protocol        = "-1"
      ipv6_cidr_block = "::/0"
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    network_acl     = network_acl.edge
  }

  host {
    conntrack {
      icmp_timeout = 300 # the entry outlives the time in which nothing passes
    }
  }
}

step "tracked flows and untracked ones" {
  apply "allowed" {}

  start "ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    sends    = "from"
  }
  start "ssh over IPv6" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    family   = "ipv6"
    port     = 22
    sends    = "from"
  }
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
  }
  start "http" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
    sends    = "from"
  }
  start "questions" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
    sends    = "from"
  }
  start "answers" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
    sends    = "to"
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
  expect "http" {
    traffic = "allowed"
    tracked = false
  }
  expect "questions" {
    traffic = "allowed"
    tracked = false
  }
  expect "answers" {
    traffic = "allowed"
    tracked = false
  }
}

step "the ACL denies what the client sends: it is cut, and the other direction is not" {
  apply "the client denied" {}
  wait "5s" {}

  expect "ssh" {
    traffic = "cut"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "cut"
    tracked = true
  }
  expect "ping" {
    traffic = "cut"
    tracked = true
  }
  expect "http" {
    traffic = "cut"
    tracked = false
  }
  expect "questions" {
    traffic = "cut"
    tracked = false
  }
  expect "answers" {
    traffic = "survives"
    tracked = false
  }

  check "a new ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    traffic  = "refused"
  }
}

step "the entry is taken away: all go on, and TCP delivers what it had to keep" {
  apply "allowed" {}
  wait {
    flow   = "ssh"
    passed = 5
    over   = "step"
  }
  wait {
    flow   = "ssh over IPv6"
    passed = 5
    over   = "step"
  }
  wait {
    flow   = "http"
    passed = 5
    over   = "step"
  }

  expect "ssh" {
    traffic = "allowed"
    over    = "the ACL denies what the client sends: it is cut, and the other direction is not"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "allowed"
    over    = "the ACL denies what the client sends: it is cut, and the other direction is not"
    tracked = true
  }
  expect "http" {
    traffic = "allowed"
    over    = "the ACL denies what the client sends: it is cut, and the other direction is not"
    tracked = false
  }
  expect "ping" {
    traffic = "allowed"
    tracked = true
  }
  expect "questions" {
    traffic = "allowed"
    tracked = false
  }
  expect "answers" {
    traffic = "allowed"
    tracked = false
  }
}
