title = "A container's published port, open to the world, is cut with its rule"
speed = 10

host "server" {
  managed    = true
  forward    = true
  masquerade = ["eth0"]

  interface "eth0" {
    addresses = ["192.0.2.10/24", "2001:db8::10/64"]
  }
  interface "docker0" {
    network   = "containers"
    addresses = ["172.17.0.1/16", "2001:db8:17::1/64"]
  }

  publish {
    interface = "eth0"
    port      = 8080
    to        = "172.17.0.2:80"
  }
  publish {
    interface = "eth0"
    port      = 8080
    to        = "[2001:db8:17::2]:80"
  }
  publish {
    interface = "eth0"
    protocol  = "udp"
    port      = 5300
    to        = "172.17.0.2:53"
  }
}

host "container" {
  interface "eth0" {
    network   = "containers"
    addresses = ["172.17.0.2/16", "2001:db8:17::2/64"]
  }
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

host "office" {
  addresses = ["192.0.2.78/24", "2001:db8::78/64"]
}

policy "published" {
  security_group "web" {
    ingress "web" {
      protocol         = "tcp"
      ports            = [8080]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    ingress "dns" {
      protocol    = "udp"
      ports       = [5300]
      cidr_blocks = ["0.0.0.0/0"]
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

policy "for the office" {
  security_group "web" {
    ingress "web" {
      protocol         = "tcp"
      ports            = [8080]
      cidr_blocks      = ["192.0.2.78/32"]
      ipv6_cidr_blocks = ["2001:db8::78/128"]
    }
    ingress "dns" {
      protocol    = "udp"
      ports       = [5300]
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

step "open to the world, and kept in conntrack, since addresses are translated" {
  apply "published" {}

  start "web" {
    protocol     = "tcp"
    from         = "client"
    to           = "server"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
  }
  start "web over IPv6" {
    protocol     = "tcp"
    from         = "client"
    to           = "server"
    family       = "ipv6"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
  }
  start "answers" {
    protocol     = "tcp"
    from         = "client"
    to           = "server"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
    sends        = "to"
  }
  start "dns" {
    protocol     = "udp"
    from         = "client"
    to           = "server"
    port         = 5300
    reaches      = "container"
    reaches_port = 53
  }
  start "web of the office" {
    protocol     = "tcp"
    from         = "office"
    to           = "server"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
  }
  start "updates" {
    protocol = "tcp"
    from     = "container"
    to       = "client"
    port     = 443
  }
  wait "5s" {}

  expect "web" {
    traffic = "allowed"
    tracked = true
  }
  expect "web over IPv6" {
    traffic = "allowed"
    tracked = true
  }
  expect "answers" {
    traffic = "allowed"
    tracked = true
  }
  expect "dns" {
    traffic = "allowed"
    tracked = true
  }
  expect "web of the office" {
    traffic = "allowed"
    tracked = true
  }
  expect "updates" {
    traffic = "allowed"
    tracked = true
  }
}

step "the rules are narrowed to the office: the client is cut, whoever sends" {
  apply "for the office" {}
  wait "10s" {}

  expect "web" {
    traffic = "cut"
    tracked = false
  }
  expect "web over IPv6" {
    traffic = "cut"
    tracked = false
  }
  expect "answers" {
    traffic = "cut"
    tracked = false
  }
  expect "dns" {
    traffic = "cut"
    tracked = false
  }
  expect "web of the office" {
    traffic = "survives"
    tracked = true
  }
  expect "updates" {
    traffic = "survives"
    tracked = true
  }
}

step "new flows" {
  check "the client's web" {
    protocol     = "tcp"
    from         = "client"
    to           = "server"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
    traffic      = "refused"
  }
  check "the office's web" {
    protocol     = "tcp"
    from         = "office"
    to           = "server"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
    traffic      = "allowed"
    tracked      = true
  }
  check "the container's updates" {
    protocol = "tcp"
    from     = "container"
    to       = "client"
    port     = 443
    traffic  = "allowed"
    tracked  = true
  }
}
