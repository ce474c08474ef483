title = "In through one interface, out through another"

# The client's way to the server leads over router A, the server's way back over
# router B.
host "server" {
  managed = true

  interface "eth0" {
    network   = "a"
    addresses = ["192.0.2.10/24", "2001:db8:a::10/64"]
  }
  interface "eth1" {
    network   = "b"
    addresses = ["198.51.100.10/24", "2001:db8:b::10/64"]
  }
  route {
    to  = "203.0.113.0/24"
    via = "198.51.100.1"
  }
  route {
    to  = "2001:db8:c::/64"
    via = "2001:db8:b::1"
  }
}

host "routerA" {
  forward = true

  interface "server" {
    network   = "a"
    addresses = ["192.0.2.1/24", "2001:db8:a::1/64"]
  }
  interface "clients" {
    network   = "clients"
    addresses = ["203.0.113.1/24", "2001:db8:c::1/64"]
  }
}

host "routerB" {
  forward = true

  interface "server" {
    network   = "b"
    addresses = ["198.51.100.1/24", "2001:db8:b::1/64"]
  }
  interface "clients" {
    network   = "clients"
    addresses = ["203.0.113.2/24", "2001:db8:c::2/64"]
  }
}

host "client" {
  interface "eth0" {
    network   = "clients"
    addresses = ["203.0.113.77/24", "2001:db8:c::77/64"]
  }
}

policy "tracked" {
  security_group "front" {
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
      cidr_blocks      = ["203.0.113.0/24"]
      ipv6_cidr_blocks = ["2001:db8:c::/64"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["203.0.113.0/24"]
    }
  }
  security_group "nothing" {}

  interface "eth0" {
    security_groups = [security_group.front]
  }
  interface "eth1" {
    security_groups = [security_group.nothing]
  }
}

policy "untracked on eth0 alone" {
  security_group "front" {
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
  security_group "nothing" {}

  interface "eth0" {
    security_groups = [security_group.front]
  }
  interface "eth1" {
    security_groups = [security_group.nothing]
  }
}

policy "untracked on both" {
  security_group "front" {
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
    security_groups = [security_group.front]
  }
  interface "eth1" {
    security_groups = [security_group.front]
  }
}

step "tracked: the answers pass eth1, which has no rules, because conntrack knows the flow" {
  apply "tracked" {}

  check "http" {
    protocol    = "tcp"
    port        = 80
    from        = "client"
    to          = "server"
    destination = "192.0.2.10"
    traffic     = "allowed"
    tracked     = true
  }
  check "http over IPv6" {
    protocol    = "tcp"
    family      = "ipv6"
    port        = 80
    from        = "client"
    to          = "server"
    destination = "2001:db8:a::10"
    traffic     = "allowed"
    tracked     = true
  }
  check "ping" {
    protocol    = "icmp"
    from        = "client"
    to          = "server"
    destination = "192.0.2.10"
    traffic     = "allowed"
    tracked     = true
  }
}

step "who comes in through eth1 finds no rule there" {
  check "http to the address of eth1" {
    protocol    = "tcp"
    port        = 80
    from        = "client"
    to          = "server"
    destination = "198.51.100.10"
    traffic     = "refused"
  }
}

step "untracked on eth0 alone: eth1 judges the answers by its own rules, and has none" {
  apply "untracked on eth0 alone" {}

  check "http" {
    protocol    = "tcp"
    port        = 80
    from        = "client"
    to          = "server"
    destination = "192.0.2.10"
    traffic     = "refused"
  }
  check "http over IPv6" {
    protocol    = "tcp"
    family      = "ipv6"
    port        = 80
    from        = "client"
    to          = "server"
    destination = "2001:db8:a::10"
    traffic     = "refused"
  }
}

step "untracked on both: each packet passes by the rules of its interface" {
  apply "untracked on both" {}

  check "http" {
    protocol    = "tcp"
    port        = 80
    from        = "client"
    to          = "server"
    destination = "192.0.2.10"
    traffic     = "allowed"
    tracked     = false
  }
  check "http over IPv6" {
    protocol    = "tcp"
    family      = "ipv6"
    port        = 80
    from        = "client"
    to          = "server"
    destination = "2001:db8:a::10"
    traffic     = "allowed"
    tracked     = false
  }
}
