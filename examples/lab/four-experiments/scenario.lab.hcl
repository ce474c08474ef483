title = "The stateful firewall in four experiments"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "ping" {
  security_group "web" {
    ingress "ping" {
      protocol    = "icmp"
      from_port   = 8
      to_port     = -1
      cidr_blocks = ["0.0.0.0/0"]
    }
    egress "any" {
      protocol    = "-1"
      cidr_blocks = ["0.0.0.0/0"]
    }
  }
  interface "eth0" {
    security_groups = [security_group.web]
  }
  host {
    conntrack {
      icmp_timeout = 300 # longer than a slow machine takes for a change
    }
  }
}

policy "no ping" {
  security_group "web" {
    egress "any" {
      protocol    = "-1"
      cidr_blocks = ["0.0.0.0/0"]
    }
  }
  interface "eth0" {
    security_groups = [security_group.web]
  }
  host {
    conntrack {
      icmp_timeout = 300 # longer than a slow machine takes for a change
    }
  }
}

step "1: ping is allowed, session 1 runs" {
  apply "ping" {}
  start "session 1" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "1s"
    count    = 65
  }
  wait {
    flow = "session 1"
    sent = 10
  }
  expect "session 1" {
    traffic = "allowed"
    tracked = true
  }
}

step "2: the rule is removed, session 1 goes on" {
  apply "no ping" {
    hold = true # no packet is sent while it changes, so that the numbers are exact
  }
  wait {
    flow = "session 1"
    sent = 19
  }
  expect "session 1" {
    traffic = "survives"
  }
}

step "3: session 2 is refused, session 1 goes on" {
  start "session 2" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "1s"
    count    = 46
  }
  wait {
    flow = "session 2"
    sent = 19
  }
  expect "session 1" {
    traffic = "survives"
  }
  expect "session 2" {
    traffic = "refused"
    tracked = false
  }
}

step "4: the rule is back, the next request of session 2 is answered" {
  apply "ping" {
    hold = true
  }
  wait {
    flow = "session 2"
    sent = 46
  }
  wait {
    flow = "session 1"
    sent = 65
  }
  expect "session 1" {
    over   = "flow"
    sent   = 65
    passed = 65
  }
  expect "session 2" {
    over         = "flow"
    sent         = 46
    passed       = 27
    first_passed = 20
  }
}
