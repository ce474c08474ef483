title = "Never filtered: what keeps the host on its network"

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "neighbour" {
  addresses = ["192.0.2.20/24", "2001:db8::20/64"]
}

# A group without rules, and an ACL without entries: each by itself lets nothing
# through.
policy "nothing" {
  security_group "empty" {}
  network_acl "empty" {}

  interface "*" {
    security_groups = [security_group.empty]
    network_acl     = network_acl.empty
  }
}

step "nothing else passes, in either direction" {
  apply "nothing" {}

  check "ping from the neighbour" {
    protocol = "icmp"
    from     = "neighbour"
    to       = "server"
    traffic  = "refused"
  }
  check "TCP from the neighbour" {
    protocol = "tcp"
    port     = 80
    from     = "neighbour"
    to       = "server"
    traffic  = "refused"
  }
  check "ping from the server" {
    protocol = "icmp"
    family   = "ipv6"
    from     = "server"
    to       = "neighbour"
    traffic  = "refused"
  }
  check "UDP from the server" {
    protocol = "udp"
    port     = 123
    from     = "server"
    to       = "neighbour"
    traffic  = "refused"
  }
}

step "loopback: the host talks to itself, by its own addresses too" {
  check "TCP to itself" {
    protocol = "tcp"
    port     = 80
    from     = "server"
    to       = "server"
    traffic  = "allowed"
  }
  check "TCP to itself over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 80
    from     = "server"
    to       = "server"
    traffic  = "allowed"
  }
  check "ping to itself" {
    protocol = "icmp"
    from     = "server"
    to       = "server"
    traffic  = "allowed"
  }
}

step "DHCP: the host as a client, and the answers to it" {
  start "DHCP" {
    protocol    = "udp"
    source_port = 68
    port        = 67
    from        = "server"
    to          = "neighbour"
    interval    = "100ms"
  }
  start "DHCPv6" {
    protocol    = "udp"
    family      = "ipv6"
    source_port = 546
    port        = 547
    from        = "server"
    to          = "neighbour"
    interval    = "100ms"
  }
  wait {
    flow   = "DHCP"
    passed = 3
  }
  wait {
    flow   = "DHCPv6"
    passed = 3
  }
  stop "DHCP" {}
  stop "DHCPv6" {}

  expect "DHCP" {
    traffic = "allowed"
  }
  expect "DHCPv6" {
    traffic = "allowed"
  }
}

step "but not as a DHCP server, and from no other port" {
  check "DHCP to the host" {
    protocol    = "udp"
    source_port = 68
    port        = 67
    from        = "neighbour"
    to          = "server"
    traffic     = "refused"
  }
  check "DHCPv6 to the host" {
    protocol    = "udp"
    family      = "ipv6"
    source_port = 546
    port        = 547
    from        = "neighbour"
    to          = "server"
    traffic     = "refused"
  }
  check "to the DHCP server's port from another" {
    protocol    = "udp"
    source_port = 69
    port        = 67
    from        = "server"
    to          = "neighbour"
    traffic     = "refused"
  }
}

step "IPv6 neighbour discovery" {
  check "router solicitation" {
    protocol  = "icmpv6"
    icmp_type = 133
    hop_limit = 255
    from      = "server"
    to        = "neighbour"
    traffic   = "allowed"
  }
  check "router advertisement" {
    protocol  = "icmpv6"
    icmp_type = 134
    hop_limit = 255
    from      = "neighbour"
    to        = "server"
    traffic   = "allowed"
  }
  check "neighbour solicitation" {
    protocol  = "icmpv6"
    icmp_type = 135
    hop_limit = 255
    from      = "neighbour"
    to        = "server"
    traffic   = "allowed"
  }
  check "neighbour advertisement" {
    protocol  = "icmpv6"
    icmp_type = 136
    hop_limit = 255
    from      = "server"
    to        = "neighbour"
    traffic   = "allowed"
  }
  check "a router advertisement that came over a router" {
    protocol  = "icmpv6"
    icmp_type = 134
    hop_limit = 254
    from      = "neighbour"
    to        = "server"
    traffic   = "refused"
  }
  check "a redirect" {
    protocol  = "icmpv6"
    icmp_type = 137
    hop_limit = 255
    from      = "neighbour"
    to        = "server"
    traffic   = "refused"
  }
}

step "multicast listeners: without them a switch stops neighbour discovery" {
  check "query" {
    protocol  = "icmpv6"
    icmp_type = 130
    hop_limit = 1
    from      = "neighbour"
    to        = "server"
    traffic   = "allowed"
  }
  check "report" {
    protocol  = "icmpv6"
    icmp_type = 131
    hop_limit = 1
    from      = "server"
    to        = "neighbour"
    traffic   = "allowed"
  }
  check "done" {
    protocol  = "icmpv6"
    icmp_type = 132
    hop_limit = 1
    from      = "server"
    to        = "neighbour"
    traffic   = "allowed"
  }
  check "report of version 2" {
    protocol  = "icmpv6"
    icmp_type = 143
    hop_limit = 1
    from      = "server"
    to        = "neighbour"
    traffic   = "allowed"
  }
  check "a query from farther away" {
    protocol  = "icmpv6"
    icmp_type = 130
    hop_limit = 64
    from      = "neighbour"
    to        = "server"
    traffic   = "refused"
  }
}
