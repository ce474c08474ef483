title = "Never filtered: resolvers and the cloud's own services"

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64", "169.254.0.10/16", "fd00:ec2::10/64"]
}

# Each address is one of the cloud's, and all of them are on this host here.
host "cloud" {
  addresses = [
    "192.0.2.254/24", "2001:db8::254/64",
    "169.254.169.254/16", "169.254.169.253/16", "169.254.169.123/16", "169.254.170.2/16",
    "169.254.169.250/16", "169.254.169.251/16", "169.254.169.252/16",
    "fd00:ec2::254/64", "fd00:ec2::253/64", "fd00:ec2::123/64", "fd00:ec2::252/64",
  ]
}

host "resolver" {
  addresses = ["192.0.2.2/24", "2001:db8::53/64"]
}

# A group without rules, and an ACL without entries: each by itself lets nothing
# through.
policy "nothing" {
  host {
    dns_resolvers = ["192.0.2.2", "2001:db8::53"]
  }
  security_group "empty" {}
  network_acl "empty" {}

  interface "eth0" {
    security_groups = [security_group.empty]
    network_acl     = network_acl.empty
  }
}

step "dns_resolvers: port 53, in both families" {
  apply "nothing" {}

  check "DNS over UDP" {
    protocol = "udp"
    port     = 53
    from     = "server"
    to       = "resolver"
    traffic  = "allowed"
  }
  check "DNS over TCP" {
    protocol = "tcp"
    port     = 53
    from     = "server"
    to       = "resolver"
    traffic  = "allowed"
  }
  check "DNS over UDP and IPv6" {
    protocol = "udp"
    family   = "ipv6"
    port     = 53
    from     = "server"
    to       = "resolver"
    traffic  = "allowed"
  }
  check "DNS over TCP and IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 53
    from     = "server"
    to       = "resolver"
    traffic  = "allowed"
  }
  check "from port 53, to any port" {
    protocol    = "udp"
    source_port = 53
    port        = 33000
    from        = "resolver"
    to          = "server"
    traffic     = "allowed"
  }
}

step "a resolver is nothing more than that" {
  check "another port" {
    protocol = "udp"
    port     = 123
    from     = "server"
    to       = "resolver"
    traffic  = "refused"
  }
  check "ping" {
    protocol = "icmp"
    from     = "server"
    to       = "resolver"
    traffic  = "refused"
  }
  check "to port 53 of the server" {
    protocol = "udp"
    port     = 53
    from     = "resolver"
    to       = "server"
    traffic  = "refused"
  }
  check "port 53 of somebody else" {
    protocol    = "udp"
    family      = "ipv4"
    port        = 53
    from        = "server"
    to          = "cloud"
    destination = "192.0.2.254"
    traffic     = "refused"
  }
}

step "the cloud's services, each of their addresses" {
  check "metadata" {
    protocol    = "tcp"
    port        = 80
    from        = "server"
    to          = "cloud"
    destination = "169.254.169.254"
    traffic     = "allowed"
  }
  check "metadata over IPv6" {
    protocol    = "tcp"
    port        = 80
    from        = "server"
    to          = "cloud"
    destination = "fd00:ec2::254"
    traffic     = "allowed"
  }
  check "DNS" {
    protocol    = "udp"
    port        = 53
    from        = "server"
    to          = "cloud"
    destination = "169.254.169.253"
    traffic     = "allowed"
  }
  check "DNS over IPv6" {
    protocol    = "udp"
    port        = 53
    from        = "server"
    to          = "cloud"
    destination = "fd00:ec2::253"
    traffic     = "allowed"
  }
  check "time" {
    protocol    = "udp"
    port        = 123
    from        = "server"
    to          = "cloud"
    destination = "169.254.169.123"
    traffic     = "allowed"
  }
  check "time over IPv6" {
    protocol    = "udp"
    port        = 123
    from        = "server"
    to          = "cloud"
    destination = "fd00:ec2::123"
    traffic     = "allowed"
  }
  check "task metadata" {
    protocol    = "tcp"
    port        = 80
    from        = "server"
    to          = "cloud"
    destination = "169.254.170.2"
    traffic     = "allowed"
  }
  check "licence activation" {
    protocol    = "tcp"
    port        = 1688
    from        = "server"
    to          = "cloud"
    destination = "169.254.169.250"
    traffic     = "allowed"
  }
  check "licence activation, the other address" {
    protocol    = "tcp"
    port        = 1688
    from        = "server"
    to          = "cloud"
    destination = "169.254.169.251"
    traffic     = "allowed"
  }
}

step "the addresses beside them are like any other" {
  check "169.254.169.252" {
    protocol    = "tcp"
    port        = 80
    from        = "server"
    to          = "cloud"
    destination = "169.254.169.252"
    traffic     = "refused"
  }
  check "fd00:ec2::252" {
    protocol    = "tcp"
    port        = 80
    from        = "server"
    to          = "cloud"
    destination = "fd00:ec2::252"
    traffic     = "refused"
  }
  check "the cloud's own address" {
    protocol    = "icmp"
    from        = "server"
    to          = "cloud"
    destination = "192.0.2.254"
    traffic     = "refused"
  }
}
