title = "SSH from one address, HTTP from anywhere"

host "server" {
  managed = true

  interface "eth0" {
    network   = "server"
    addresses = ["192.0.2.10/24", "2001:db8:1::10/64"]
  }
}

# SSH is open to this address alone.
host "office" {
  interface "eth0" {
    network   = "office"
    addresses = ["203.0.113.1/24"]
  }
}

# Somebody from anywhere.
host "visitor" {
  interface "eth0" {
    network   = "anywhere"
    addresses = ["198.51.100.7/24", "2001:db8:7::7/64"]
  }
}

host "router" {
  forward = true

  interface "server" {
    network   = "server"
    addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]
  }
  interface "office" {
    network   = "office"
    addresses = ["203.0.113.254/24"]
  }
  interface "anywhere" {
    network   = "anywhere"
    addresses = ["198.51.100.1/24", "2001:db8:7::1/64"]
  }
}

policy "the example" {
  security_group "web" {
    ingress "ssh" {
      protocol    = "tcp"
      ports       = [22]
      cidr_blocks = ["203.0.113.1/32"]
    }
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    ingress "icmp" {
      protocol    = "icmp"
      from_port   = -1
      to_port     = -1
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

policy "without IPv4 egress" {
  security_group "web" {
    ingress "ssh" {
      protocol    = "tcp"
      ports       = [22]
      cidr_blocks = ["203.0.113.1/32"]
    }
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    ingress "icmp" {
      protocol    = "icmp"
      from_port   = -1
      to_port     = -1
      cidr_blocks = ["0.0.0.0/0"]
    }
    egress "any" {
      protocol         = "-1"
      ipv6_cidr_blocks = ["::/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

step "who may come in, and whom conntrack remembers" {
  apply "the example" {}

  check "SSH from the office" {
    protocol = "tcp"
    port     = 22
    from     = "office"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
  check "SSH from elsewhere" {
    protocol = "tcp"
    port     = 22
    from     = "visitor"
    to       = "server"
    traffic  = "refused"
  }
  check "HTTP" {
    protocol = "tcp"
    family   = "ipv4"
    port     = 80
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
    tracked  = false
  }
  check "HTTP over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 80
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
    tracked  = false
  }
  check "UDP to the same port" {
    protocol = "udp"
    port     = 80
    from     = "visitor"
    to       = "server"
    traffic  = "refused"
  }
  check "ping" {
    protocol = "icmp"
    family   = "ipv4"
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
  check "ping over IPv6, which no rule allows" {
    protocol = "icmp"
    family   = "ipv6"
    from     = "visitor"
    to       = "server"
    traffic  = "refused"
  }
}

step "what the server opens itself is tracked: inwards not all ports are open" {
  check "HTTPS" {
    protocol = "tcp"
    family   = "ipv4"
    port     = 443
    from     = "server"
    to       = "visitor"
    traffic  = "allowed"
    tracked  = true
  }
  check "HTTPS over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 443
    from     = "server"
    to       = "visitor"
    traffic  = "allowed"
    tracked  = true
  }
}

step "two visitors stay for a while" {
  start "HTTP session" {
    protocol = "tcp"
    port     = 80
    from     = "visitor"
    to       = "server"
    interval = "50ms"
  }
  start "HTTP session over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 80
    from     = "visitor"
    to       = "server"
    interval = "50ms"
  }
  wait {
    flow   = "HTTP session"
    passed = 5
  }
  wait {
    flow   = "HTTP session over IPv6"
    passed = 5
  }

  expect "HTTP session" {
    traffic = "allowed"
    tracked = false
  }
  expect "HTTP session over IPv6" {
    traffic = "allowed"
    tracked = false
  }
}

step "without the IPv4 egress rule, HTTP over IPv4 is tracked, and goes on" {
  apply "without IPv4 egress" {}
  wait "500ms" {}

  check "another HTTP session" {
    protocol = "tcp"
    family   = "ipv4"
    port     = 80
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
  check "another HTTP session over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 80
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
    tracked  = false
  }

  expect "HTTP session" {
    traffic = "survives"
    tracked = true
  }
  expect "HTTP session over IPv6" {
    traffic = "survives"
    tracked = false
  }
}

step "SSH and ping are as they were; the server opens nothing over IPv4 any more" {
  check "SSH from the office" {
    protocol = "tcp"
    port     = 22
    from     = "office"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
  check "ping" {
    protocol = "icmp"
    family   = "ipv4"
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
  check "HTTPS of the server" {
    protocol = "tcp"
    family   = "ipv4"
    port     = 443
    from     = "server"
    to       = "visitor"
    traffic  = "refused"
  }
  check "HTTPS of the server over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 443
    from     = "server"
    to       = "visitor"
    traffic  = "allowed"
    tracked  = true
  }
}

step "with the rule again, the session is as untracked as before" {
  apply "the example" {}
  wait "500ms" {}

  expect "HTTP session" {
    traffic = "survives"
    tracked = false
  }
}
