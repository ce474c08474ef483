title = "The counter-example: a flow that is open to the world is cut with its rule"

# TCP sends again what was lost at its own pace, which no speed changes.
speed = 5

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

policy "ssh from anywhere" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
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

policy "no ssh" {
  security_group "web" {
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

step "two sessions run, and conntrack knows neither" {
  apply "ssh from anywhere" {}

  start "ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
  }
  start "ssh over IPv6" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    family   = "ipv6"
    port     = 22
  }
  wait "5s" {}

  expect "ssh" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "allowed"
    tracked = false
  }
}

step "the rule is removed: both are cut, although the server goes on sending and its egress is open" {
  apply "no ssh" {}
  wait "10s" {}

  expect "ssh" {
    traffic = "cut"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "cut"
    tracked = false
  }
  check "what the server opens itself" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 443
    traffic  = "allowed"
    tracked  = true
  }
}
