title = "GRE and other protocols: address and protocol are all that counts"
speed = 5

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "office" {
  addresses = ["192.0.2.20/24", "2001:db8::20/64"]
}

host "stranger" {
  addresses = ["192.0.2.66/24"]
}

policy "a tunnel to the office" {
  security_group "tunnel" {
    egress "gre" {
      protocol         = "gre"
      cidr_blocks      = ["192.0.2.20/32"]
      ipv6_cidr_blocks = ["2001:db8::20/128"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.tunnel]
  }
}

policy "no tunnel" {
  security_group "tunnel" {}

  interface "eth0" {
    security_groups = [security_group.tunnel]
  }
}

step "before the server has sent anything, the office is refused" {
  apply "a tunnel to the office" {}

  check "gre of the office" {
    protocol = "gre"
    from     = "office"
    to       = "server"
    traffic  = "refused"
  }
}

step "the server begins, and the office's answers pass" {
  start "tunnel" {
    protocol = "gre"
    from     = "server"
    to       = "office"
    interval = "500ms"
  }
  start "tunnel over IPv6" {
    protocol = "gre"
    family   = "ipv6"
    from     = "server"
    to       = "office"
    interval = "500ms"
  }
  wait {
    flow   = "tunnel"
    passed = 3
  }
  wait {
    flow   = "tunnel over IPv6"
    passed = 3
  }

  expect "tunnel" {
    traffic = "allowed"
  }
  expect "tunnel over IPv6" {
    traffic = "allowed"
  }
}

step "now the office may send GRE by itself; another protocol and another host may not" {
  check "gre of the office" {
    protocol = "gre"
    sends    = "from"
    from     = "office"
    to       = "server"
    traffic  = "allowed"
  }
  check "protocol 253 of the office" {
    protocol = "253"
    from     = "office"
    to       = "server"
    traffic  = "refused"
  }
  check "gre of a stranger" {
    protocol = "gre"
    from     = "stranger"
    to       = "server"
    traffic  = "refused"
  }
}

step "the rule is gone: the tunnel goes on, until it is silent for 600 seconds" {
  apply "no tunnel" {}
  wait "5s" {}

  expect "tunnel" {
    traffic = "survives"
  }
  expect "tunnel over IPv6" {
    traffic = "survives"
  }
  check "a tunnel to the stranger" {
    protocol = "gre"
    from     = "server"
    to       = "stranger"
    traffic  = "refused"
  }
}

step "--flush revoked forgets it, and stops it at once" {
  apply "no tunnel" {
    flush = "revoked"
  }
  wait "5s" {}

  expect "tunnel" {
    traffic = "cut"
  }
  expect "tunnel over IPv6" {
    traffic = "cut"
  }
}
