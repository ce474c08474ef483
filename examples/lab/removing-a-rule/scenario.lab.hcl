title = "Why removing a rule does not stop traffic"
speed = 10

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "no rules" {
  security_group "web" {}

  interface "eth0" {
    security_groups = [security_group.web]
  }
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

step "a group without rules: no answer" {
  apply "no rules" {}

  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    id       = 7
  }
  wait "5s" {}

  expect "ping" {
    traffic = "refused"
    tracked = false
  }
}

step "a rule for ICMP from anywhere: answers" {
  apply "ping from anywhere" {}
  wait "5s" {}

  expect "ping" {
    traffic = "allowed"
    tracked = true
  }
  counter "security_group.web.ingress.ping" {
    packets = 1 # the one that opened the flow
  }
}

step "the rule is removed: the answers go on" {
  apply "no rules" {}
  wait "20s" {}

  expect "ping" {
    traffic = "survives"
    tracked = true
  }
  check "a new ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    id       = "new"
    traffic  = "refused"
  }
}

step "stopped and started again at once, with the same id: still answered" {
  stop "ping" {}

  start "ping again" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    id       = 7
  }
  wait "5s" {}
  stop "ping again" {}

  expect "ping again" {
    traffic = "allowed"
  }
}

step "silent for longer than the idle timeout: no answer any more" {
  wait "50s" {}

  start "ping after the silence" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    id       = 7
  }
  wait "5s" {}

  expect "ping after the silence" {
    traffic = "refused"
    tracked = false
  }
}
