title = "An untracked UDP flow is cut with its rule, and the port is held for a while"
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

policy "dns for the world" {
  security_group "web" {
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

policy "dns for the office" {
  security_group "web" {
    ingress "dns" {
      protocol         = "udp"
      ports            = [53]
      cidr_blocks      = ["192.0.2.78/32"]
      ipv6_cidr_blocks = ["2001:db8::78/128"]
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

step "all are untracked" {
  apply "dns for the world" {}

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
  start "answers" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
    sends    = "to"
  }
  start "dns of the office" {
    protocol = "udp"
    from     = "office"
    to       = "server"
    port     = 53
  }
  wait "5s" {}

  expect "dns" {
    traffic = "allowed"
    tracked = false
  }
  expect "dns over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "answers" {
    traffic = "allowed"
    tracked = false
  }
  expect "dns of the office" {
    traffic = "allowed"
    tracked = false
  }
}

step "dns is for the office alone: the client is cut, although the server goes on sending and its egress is open" {
  apply "dns for the office" {}
  wait "10s" {}

  expect "dns" {
    traffic = "cut"
    tracked = false
  }
  expect "dns over IPv6" {
    traffic = "cut"
    tracked = false
  }
  expect "answers" {
    traffic = "cut"
    tracked = false
  }
  expect "dns of the office" {
    traffic = "survives"
    tracked = true
  }
}

step "what is held: port 53 of the server, towards those for whom it is closed" {
  check "from port 53 to the client" {
    protocol    = "udp"
    from        = "server"
    to          = "client"
    source_port = 53
    port        = 5000
    traffic     = "refused"
  }
  check "from another port to the client" {
    protocol = "udp"
    from     = "server"
    to       = "client"
    port     = 5000
    traffic  = "allowed"
    tracked  = true
  }
  check "from port 53 to the office" {
    protocol    = "udp"
    from        = "server"
    to          = "office"
    source_port = 53
    port        = 5000
    traffic     = "allowed"
    tracked     = true
  }
  check "by TCP to the client" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 5000
    traffic  = "allowed"
    tracked  = true
  }
}

step "the rule comes back: nothing is held any more" {
  apply "dns for the world" {}
  wait "10s" {}

  expect "dns" {
    traffic = "allowed"
    tracked = false
  }
  expect "dns over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "answers" {
    traffic = "allowed"
    tracked = false
  }
  expect "dns of the office" {
    traffic = "allowed"
    tracked = false
  }

  check "from port 53 to the client at once" {
    protocol    = "udp"
    from        = "server"
    to          = "client"
    source_port = 53
    port        = 5000
    traffic     = "allowed"
  }
}
