title = "A network ACL breaks what a group allows, and heals it"
speed = 5

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "no ACL" {
  security_group "web" {
    ingress "http" {
      protocol    = "tcp"
      ports       = [80]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

# The answers go to the ports that clients choose, and most choose one above
# 32767.
policy "the answers are denied" {
  security_group "web" {
    ingress "http" {
      protocol    = "tcp"
      ports       = [80]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  network_acl "edge" {
    ingress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
    egress {
      rule_no    = 90
      action     = "deny"
      protocol   = "tcp"
      from_port  = 32768
      to_port    = 65535
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

# The same entries, but the one that allows everything comes first.
policy "the deny comes too late" {
  security_group "web" {
    ingress "http" {
      protocol    = "tcp"
      ports       = [80]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  network_acl "edge" {
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
    egress {
      rule_no    = 110
      action     = "deny"
      protocol   = "tcp"
      from_port  = 32768
      to_port    = 65535
      cidr_block = "0.0.0.0/0"
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
    network_acl     = network_acl.edge
  }
}

policy "an ACL without entries" {
  security_group "web" {
    ingress "http" {
      protocol    = "tcp"
      ports       = [80]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  network_acl "edge" {}

  interface "eth0" {
    security_groups = [security_group.web]
    network_acl     = network_acl.edge
  }
}

step "the group lets the client in, and the answers pass by themselves" {
  apply "no ACL" {}

  # Only the server sends, after the request.
  start "download" {
    protocol = "tcp"
    port     = 80
    from     = "client"
    to       = "server"
    sends    = "to"
    interval = "500ms"
  }
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "500ms"
  }
  wait {
    flow   = "ping"
    passed = 5
  }

  expect "download" {
    traffic = "allowed"
    tracked = true
  }
  expect "ping" {
    traffic = "allowed"
    tracked = true
  }
}

step "an ACL denies the answers: the download stands still, although conntrack knows it" {
  apply "the answers are denied" {}
  wait "3s" {}

  expect "download" {
    traffic = "cut"
    tracked = true
  }
  expect "ping" {
    traffic = "survives"
  }
  check "a new connection" {
    protocol = "tcp"
    port     = 80
    from     = "client"
    to       = "server"
    traffic  = "refused"
  }
  check "from a port below the denied ones" {
    protocol    = "tcp"
    source_port = 20000
    port        = 80
    from        = "client"
    to          = "server"
    traffic     = "allowed"
  }
}

step "the same entries in the other order: the first that matches decides, and the download goes on" {
  apply "the deny comes too late" {}
  # TCP sends again what was lost when its own clock says so.
  wait "2s" {
    real = true
  }

  expect "download" {
    traffic = "allowed"
  }
  check "a new connection" {
    protocol = "tcp"
    port     = 80
    from     = "client"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
}

step "and with an empty ACL nothing passes: ACLs deny what no entry names" {
  apply "an ACL without entries" {}
  wait "5s" {}

  expect "download" {
    traffic = "cut"
  }
  expect "ping" {
    traffic = "cut"
  }
}
