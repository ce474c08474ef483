title = "Every kind of flow, host and address"
speed = 5

network "home" {
  mtu = 1400
}

host "server" {
  managed    = true
  forward    = true
  masquerade = ["eth0"]

  interface "eth0" {
    network   = "wan"
    addresses = ["192.0.2.10/24", "2001:db8::10/64"]
  }
  interface "docker0" {
    network   = "containers"
    addresses = ["172.17.0.1/24", "fd00::1/64"]
  }
  publish {
    interface = "eth0"
    port      = 8080
    to        = "172.17.0.2:80"
  }
  publish {
    interface = "eth0"
    protocol  = "udp"
    port      = 8080
    to        = "[fd00::2]:80"
  }
}

host "container" {
  interface "eth0" {
    network   = "containers"
    addresses = ["172.17.0.2/24", "fd00::2/64"]
  }
}

host "router" {
  forward    = true
  masquerade = ["eth1"]

  interface "eth0" {
    network   = "home"
    addresses = ["10.0.0.1/24"]
  }
  interface "eth1" {
    network   = "wan"
    addresses = ["192.0.2.66/24"]
  }
}

host "laptop" {
  interface "eth0" {
    network   = "home"
    addresses = ["10.0.0.2/24"]
  }
}

host "client" {
  interface "eth0" {
    network   = "wan"
    addresses = ["192.0.2.77/24", "2001:db8::77/64", "192.0.2.78/24"]
  }
}

policy "some" {
  security_group "web" {
    ingress "tcp" {
      protocol         = "tcp"
      ports            = [22, 8080]
      cidr_blocks      = ["192.0.2.66/32", "192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
    }
    ingress "udp" {
      protocol         = "udp"
      ports            = [53, 8080]
      cidr_blocks      = ["192.0.2.64/26"]
      ipv6_cidr_blocks = ["2001:db8::/64"]
    }
    ingress "gre" {
      protocol    = "gre"
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "ping6" {
      protocol         = "icmpv6"
      from_port        = 128
      to_port          = -1
      ipv6_cidr_blocks = ["2001:db8::/64"]
    }
    egress "dns" {
      protocol    = "udp"
      ports       = [53]
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    connection_tracking {
      udp_timeout = 60
    }
  }
}

step "what the rules let through" {
  apply "some" {}

  check "a container's port" {
    protocol     = "tcp"
    from         = "client"
    to           = "server"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
    traffic      = "allowed"
    tracked      = true
  }
  check "a container's port, from behind a router" {
    protocol     = "tcp"
    from         = "laptop"
    to           = "server"
    destination  = host.server.ipv4
    port         = 8080
    reaches      = "container"
    reaches_port = 80
    traffic      = "allowed"
    tracked      = true
  }
  check "a container's port, UDP over IPv6" {
    protocol     = "udp"
    family       = "ipv6"
    from         = "client"
    to           = "server"
    port         = 8080
    reaches      = "container"
    reaches_port = 80
    traffic      = "allowed"
    tracked      = true
  }
  check "what a container opens" {
    protocol = "udp"
    from     = "container"
    to       = "client"
    port     = 53
    traffic  = "allowed"
    tracked  = true
  }
  check "what a container may not open" {
    protocol = "udp"
    from     = "container"
    to       = "client"
    port     = 54
    traffic  = "refused"
  }
  check "what the host may not open" {
    protocol = "udp"
    from     = "server"
    to       = "client"
    port     = 54
    traffic  = "refused"
    tracked  = false
  }
  check "another protocol" {
    protocol = 47
    from     = "client"
    to       = "server"
    traffic  = "allowed"
  }
  check "another protocol that no rule names" {
    protocol = "esp"
    from     = "client"
    to       = "server"
    traffic  = "refused"
  }
  check "a large ping over IPv6" {
    protocol = "icmp"
    family   = "ipv6"
    from     = "client"
    to       = "server"
    size     = 1400
    traffic  = "allowed"
    tracked  = true
  }
  check "a ping" {
    protocol = "icmp"
    from     = "laptop"
    to       = "server"
    traffic  = "refused"
    tracked  = false
  }
  check "an address that no rule names" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    source   = "192.0.2.78"
    port     = 22
    traffic  = "refused"
  }
  counter "security_group.web.ingress.udp" {
    at_least = 1
  }
}

step "flows of both sides, of one, and of a fixed port" {
  start "both" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
  }
  start "to" {
    protocol    = "udp"
    from        = "client"
    to          = "server"
    port        = 53
    source_port = 5353
    sends       = "to"
  }
  start "from" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    sends    = "from"
    count    = 3
  }
  start "refused" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 23
  }
  wait {
    flow   = "from"
    passed = 3
  }
  wait "2s" {
    real = true
  }

  expect "both" {
    traffic = "allowed"
    tracked = true
  }
  expect "to" {
    traffic = "allowed"
    over    = "flow"
    sent    = 1
    passed  = 1
    tracked = true
  }
  expect "from" {
    traffic      = "allowed"
    over         = "flow"
    sent         = 3
    passed       = 3
    first_passed = 1
  }
  expect "refused" {
    traffic = "refused"
    tracked = false
  }
}

step "one way is a flow without answers, with the timeout of its interface" {
  start "one way" {
    protocol = "udp"
    from     = "client"
    to       = "server"
    port     = 53
    sends    = "from"
  }
  wait "3s" {}

  expect "one way" {
    traffic = "allowed"
    tracked = true
    timeout = "60s"
  }
}

step "nothing is enforced any more" {
  stop "both" {}
  destroy {}
  wait "2s" {}

  expect "refused" {
    traffic = "allowed"
    lost    = "50%"
  }
  expect "to" {
    traffic = "survives"
    over    = "flow"
  }
}
