title = "A link on the way is narrower: path MTU discovery"

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8:1::10/64"]
}

host "near-router" {
  forward = true
  interface "eth0" {
    addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]
  }
  interface "eth1" {
    network   = "narrow"
    addresses = ["198.51.100.1/24", "2001:db8:2::1/64"]
  }
}

network "narrow" {
  mtu = 1300
}

host "far-router" {
  forward = true
  interface "eth0" {
    network   = "narrow"
    addresses = ["198.51.100.2/24", "2001:db8:2::2/64"]
  }
  interface "eth1" {
    network   = "far"
    addresses = ["203.0.113.1/24", "2001:db8:3::1/64"]
  }
}

host "client" {
  interface "eth0" {
    network   = "far"
    addresses = ["203.0.113.77/24", "2001:db8:3::77/64"]
  }
}

host "vault" {
  interface "eth0" {
    network   = "far"
    addresses = ["203.0.113.78/24", "2001:db8:3::78/64"]
  }
}

# A server remembers for ten minutes what it was told of an address, so that the
# last step needs others.
host "visitor" {
  interface "eth0" {
    network   = "far"
    addresses = ["203.0.113.87/24", "2001:db8:3::87/64"]
  }
}

host "second-vault" {
  interface "eth0" {
    network   = "far"
    addresses = ["203.0.113.88/24", "2001:db8:3::88/64"]
  }
}

policy "rules" {
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
  }

  host {
    icmp_errors = "rules"
  }
}

policy "rules that let the errors in" {
  security_group "web" {
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    ingress "fragmentation_needed" {
      protocol    = "icmp"
      from_port   = 3
      to_port     = 4
      cidr_blocks = ["0.0.0.0/0"]
    }
    ingress "packet_too_big" {
      protocol         = "icmpv6"
      from_port        = 2
      to_port          = 0
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

  host {
    icmp_errors = "rules"
  }
}

policy "related" {
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
  }
}

step "the rules alone decide, and none lets errors in: connections open" {
  apply "rules" {}

  start "backup" {
    protocol = "tcp"
    from     = "server"
    to       = "vault"
    port     = 873
    size     = 2000
    interval = "500ms"
    sends    = "from"
  }
  start "backup over IPv6" {
    protocol = "tcp"
    from     = "server"
    to       = "vault"
    family   = "ipv6"
    port     = 873
    size     = 2000
    interval = "500ms"
    sends    = "from"
  }
  wait {
    flow   = "backup"
    passed = 1
  }
  wait {
    flow   = "backup over IPv6"
    passed = 1
  }
  start "download" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
    size     = 2000
    interval = "500ms"
    sends    = "to"
  }
  start "download over IPv6" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    family   = "ipv6"
    port     = 80
    size     = 2000
    interval = "500ms"
    sends    = "to"
  }
  start "small" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
    size     = 500
    interval = "200ms"
  }
  wait {
    flow   = "download"
    passed = 1
  }
  wait {
    flow   = "download over IPv6"
    passed = 1
  }
  wait {
    flow   = "small"
    passed = 2
  }

  expect "small" {
    traffic = "allowed"
    tracked = false
  }
}

step "the errors are dropped: what does not fit is lost, and nobody tells the server" {
  wait "1s" {}

  expect "download" {
    traffic = "cut"
    tracked = false
  }
  expect "download over IPv6" {
    traffic = "cut"
    tracked = false
  }
  expect "backup" {
    traffic = "cut"
    tracked = true
  }
  expect "backup over IPv6" {
    traffic = "cut"
    tracked = true
  }
  expect "small" {
    traffic = "survives"
    tracked = false
  }
}

step "rules let the errors in: TCP sends again, in smaller pieces, and nothing was lost" {
  apply "rules that let the errors in" {}
  wait {
    flow   = "backup"
    passed = 3
    over   = "step"
  }
  wait {
    flow   = "backup over IPv6"
    passed = 3
    over   = "step"
  }

  expect "download" {
    traffic = "allowed"
    tracked = false
    over    = "the errors are dropped: what does not fit is lost, and nobody tells the server"
  }
  expect "download over IPv6" {
    traffic = "allowed"
    tracked = false
    over    = "the errors are dropped: what does not fit is lost, and nobody tells the server"
  }
  expect "backup" {
    traffic = "allowed"
    tracked = true
    over    = "the errors are dropped: what does not fit is lost, and nobody tells the server"
  }
  expect "backup over IPv6" {
    traffic = "allowed"
    tracked = true
    over    = "the errors are dropped: what does not fit is lost, and nobody tells the server"
  }
}

step "icmp_errors = related needs no rule for them" {
  apply "related" {}

  start "second backup" {
    protocol = "tcp"
    from     = "server"
    to       = "second-vault"
    port     = 873
    size     = 2000
    interval = "500ms"
    sends    = "from"
  }
  start "second backup over IPv6" {
    protocol = "tcp"
    from     = "server"
    to       = "second-vault"
    family   = "ipv6"
    port     = 873
    size     = 2000
    interval = "500ms"
    sends    = "from"
  }
  wait {
    flow   = "second backup"
    passed = 1
  }
  wait {
    flow   = "second backup over IPv6"
    passed = 1
  }
  start "second download" {
    protocol = "tcp"
    from     = "visitor"
    to       = "server"
    port     = 80
    size     = 2000
    interval = "500ms"
    sends    = "to"
  }
  start "second download over IPv6" {
    protocol = "tcp"
    from     = "visitor"
    to       = "server"
    family   = "ipv6"
    port     = 80
    size     = 2000
    interval = "500ms"
    sends    = "to"
  }
  wait {
    flow   = "second backup"
    passed = 3
  }
  wait {
    flow   = "second backup over IPv6"
    passed = 3
  }

  expect "second download" {
    traffic = "allowed"
    tracked = false
  }
  expect "second download over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "second backup" {
    traffic = "allowed"
    tracked = true
  }
  expect "second backup over IPv6" {
    traffic = "allowed"
    tracked = true
  }

  check "an error of no flow" {
    protocol  = "icmp"
    from      = "client"
    to        = "server"
    icmp_type = 3
    icmp_code = 4
    traffic   = "refused"
  }
  check "an error of no flow, over IPv6" {
    protocol  = "icmpv6"
    from      = "client"
    to        = "server"
    icmp_type = 2
    traffic   = "refused"
  }
}
