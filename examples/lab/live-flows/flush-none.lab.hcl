title = "With --flush none, nothing is cut: untracked connections go on as tracked ones"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "ssh from anywhere" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
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

policy "no ssh" {
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

step "two untracked sessions" {
  apply "ssh from anywhere" {}

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
  wait "5s" {}

  expect "ssh" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "allowed"
    tracked = false
  }
}

step "the rule is gone, with --flush none: they go on, tracked" {
  apply "no ssh" {
    flush = "none"
  }
  wait "10s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
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

step "what was spared is a tracked flow now: the next apply spares it, too" {
  apply "no ssh" {}
  wait "5s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "survives"
    tracked = true
  }
}
