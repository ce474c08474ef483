title = "The allowance: when conntrack has no room left"
speed = 5

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "office" {
  addresses = ["192.0.2.77/24"]
}

host "visitor" {
  addresses = ["192.0.2.88/24", "2001:db8::88/64"]
}

policy "web" {
  security_group "web" {
    ingress "ssh" {
      protocol    = "tcp"
      ports       = [22]
      cidr_blocks = ["192.0.2.77/32"]
    }
    ingress "http" {
      protocol         = "tcp"
      ports            = [80]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
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

step "there is room: SSH is tracked, HTTP is not" {
  apply "web" {}

  start "ssh" {
    protocol = "tcp"
    port     = 22
    from     = "office"
    to       = "server"
  }
  start "http" {
    protocol = "tcp"
    port     = 80
    from     = "visitor"
    to       = "server"
  }
  wait {
    flow   = "ssh"
    passed = 3
  }
  wait {
    flow   = "http"
    passed = 3
  }

  expect "ssh" {
    traffic = "allowed"
    tracked = true
  }
  expect "http" {
    traffic = "allowed"
    tracked = false
  }
  allowance {
    exceeded = 0
  }
}

step "one place is left: the first new flow takes it" {
  fill {
    leave = 1
  }
  start "the last ssh session" {
    protocol = "tcp"
    port     = 22
    from     = "office"
    to       = "server"
  }
  wait {
    flow   = "the last ssh session"
    passed = 2
  }

  expect "the last ssh session" {
    traffic = "allowed"
  }
  allowance {
    available = 0
    exceeded  = 0
  }
}

step "the table is full: new tracked flows are dropped, and counted" {
  check "ping" {
    protocol = "icmp"
    from     = "visitor"
    to       = "server"
    traffic  = "refused"
  }
  check "another ssh session" {
    protocol = "tcp"
    port     = 22
    from     = "office"
    to       = "server"
    traffic  = "refused"
  }
  check "what the server opens itself" {
    protocol = "tcp"
    port     = 443
    from     = "server"
    to       = "visitor"
    traffic  = "refused"
  }

  expect "ssh" {
    traffic = "survives"
  }
  expect "the last ssh session" {
    traffic = "survives"
  }
  allowance {
    available         = 0
    exceeded_at_least = 9
  }
}

step "untracked flows need no room: old ones go on, and new ones pass" {
  check "another visitor of the web site" {
    protocol = "tcp"
    port     = 80
    from     = "office"
    to       = "server"
    traffic  = "allowed"
  }
  check "and one over IPv6" {
    protocol = "tcp"
    family   = "ipv6"
    port     = 80
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
  }

  expect "http" {
    over    = "one place is left: the first new flow takes it"
    traffic = "survives"
  }
}

step "there is room again" {
  drain {}
  check "ping, once more" {
    protocol = "icmp"
    from     = "visitor"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
}
