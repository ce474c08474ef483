title = "Three ways to stop a tracked flow at once"
speed = 10

locals {
  ping = { from = "client", to = "server" }
}

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "ping from anywhere" {
  security_group "web" {
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["0.0.0.0/0"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

policy "no rules" {
  security_group "web" {}

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

policy "no group" {
  interface "eth0" {
    security_groups = []
  }
}

policy "denied by a network ACL" {
  security_group "web" {
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["0.0.0.0/0"]
    }
  }

  network_acl "edge" {
    ingress {
      rule_no    = 90
      action     = "deny"
      protocol   = "-1"
      cidr_block = "192.0.2.77/32"
    }
    ingress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
    egress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    network_acl     = network_acl.edge
  }
}

step "ping is answered" {
  apply "ping from anywhere" {}

  start "ping" {
    protocol = "icmp"
    from     = local.ping.from
    to       = local.ping.to
  }
  wait "5s" {}

  expect "ping" {
    traffic = "allowed"
    tracked = true
  }
}

step "first way: an entry of a network ACL" {
  apply "denied by a network ACL" {}
  wait "5s" {}

  expect "ping" {
    traffic = "cut"
  }
}

step "the entry is gone: the flow goes on" {
  apply "ping from anywhere" {}
  wait "5s" {}

  expect "ping" {
    traffic = "allowed"
  }
}

step "second way: the rule is removed with --flush revoked" {
  apply "no rules" {
    flush = "revoked"
  }
  wait "5s" {}

  expect "ping" {
    traffic = "cut"
    tracked = false
  }
}

step "and once more with a rule" {
  apply "ping from anywhere" {}
  wait "5s" {}

  expect "ping" {
    traffic = "allowed"
    tracked = true
  }
}

step "third way: the group itself is deleted" {
  apply "no group" {}
  wait "5s" {}

  expect "ping" {
    traffic = "cut"
    tracked = false
  }
}
