title = "Never filtered: addresses of one's own choice"

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "backup" {
  addresses = ["192.0.2.30/24", "2001:db8::30/64"]
}

host "neighbour" {
  addresses = ["192.0.2.31/24", "2001:db8::31/64"]
}

# A group without rules, and an ACL without entries: each by itself lets nothing
# through.
policy "nothing" {
  host {
    exempt = ["192.0.2.30", "2001:db8::30"]
  }
  security_group "empty" {}
  network_acl "empty" {}

  interface "eth0" {
    security_groups = [security_group.empty]
    network_acl     = network_acl.empty
  }
}

step "everything to and from an address of host.exempt passes" {
  apply "nothing" {}

  check "TCP to the server" {
    protocol = "tcp"
    port     = 22
    from     = "backup"
    to       = "server"
    traffic  = "allowed"
  }
  check "TCP of the server" {
    protocol = "tcp"
    port     = 873
    from     = "server"
    to       = "backup"
    traffic  = "allowed"
  }
  check "UDP to the server, over IPv6" {
    protocol = "udp"
    family   = "ipv6"
    port     = 514
    from     = "backup"
    to       = "server"
    traffic  = "allowed"
  }
  check "ping of the server, over IPv6" {
    protocol = "icmp"
    family   = "ipv6"
    from     = "server"
    to       = "backup"
    traffic  = "allowed"
  }
  check "protocol 253" {
    protocol = "253"
    from     = "backup"
    to       = "server"
    traffic  = "allowed"
  }
}

step "the address beside it is like any other" {
  check "TCP to the server, of a neighbour" {
    protocol = "tcp"
    port     = 22
    from     = "neighbour"
    to       = "server"
    traffic  = "refused"
  }
  check "ping to a neighbour" {
    protocol = "icmp"
    family   = "ipv6"
    from     = "server"
    to       = "neighbour"
    traffic  = "refused"
  }
}
