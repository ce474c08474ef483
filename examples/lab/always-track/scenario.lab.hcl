title = "Peers that are tracked whatever the rules say"
speed = 5

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "balancer" {
  addresses = ["192.0.2.200/24", "2001:db8::200/64"]
}

host "visitor" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "open" {
  security_group "web" {
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
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
    always_track "balancers" {
      cidr_blocks             = ["192.0.2.200/32"]
      ipv6_cidr_blocks        = ["2001:db8::200/128"]
      tcp_established_timeout = 350
    }
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
    always_track "balancers" {
      cidr_blocks             = ["192.0.2.200/32"]
      ipv6_cidr_blocks        = ["2001:db8::200/128"]
      tcp_established_timeout = 350
    }
  }
}

step "port 80 is open to everybody: the visitor is untracked, the balancer is tracked" {
  apply "open" {}

  start "visitor" {
    protocol = "tcp"
    port     = 80
    from     = "visitor"
    to       = "server"
  }
  start "balancer" {
    protocol = "tcp"
    port     = 80
    from     = "balancer"
    to       = "server"
  }
  start "balancer over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 80
    from     = "balancer"
    to       = "server"
  }
  # It says one thing and is silent then: while something of TCP is not
  # acknowledged, the kernel gives it no more than five minutes.
  start "balancer, a silent session" {
    protocol = "tcp"
    port     = 80
    from     = "balancer"
    to       = "server"
    interval = "5m"
  }
  wait {
    flow   = "visitor"
    passed = 2
  }
  wait {
    flow   = "balancer"
    passed = 2
  }
  wait {
    flow   = "balancer over IPv6"
    passed = 2
  }
  wait {
    flow   = "balancer, a silent session"
    passed = 2
  }
  wait "1s" {}

  expect "visitor" {
    traffic = "allowed"
    tracked = false
  }
  expect "balancer" {
    traffic = "allowed"
    tracked = true
  }
  expect "balancer over IPv6" {
    traffic = "allowed"
    tracked = true
  }
  expect "balancer, a silent session" {
    traffic = "allowed"
    timeout = "350s"
  }
}

step "the rule is gone: the visitor is cut, the balancer goes on" {
  apply "closed" {}
  wait "5s" {}

  expect "visitor" {
    traffic = "cut"
    tracked = false
  }
  expect "balancer" {
    traffic = "survives"
    tracked = true
  }
  expect "balancer over IPv6" {
    traffic = "survives"
    tracked = true
  }
  check "the balancer, anew" {
    protocol = "tcp"
    port     = 80
    from     = "balancer"
    to       = "server"
    traffic  = "refused"
  }
}
