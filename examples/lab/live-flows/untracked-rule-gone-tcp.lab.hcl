title = "An untracked TCP flow is cut with its rule"

# TCP sends again what was lost at its own pace, which no speed changes.
speed = 5

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}

host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}

host "office" {
  addresses = ["192.0.2.78/24", "2001:db8::78/64"]
}

policy "ssh and http for the world" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
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

policy "ssh for the office" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.78/32"]
      ipv6_cidr_blocks = ["2001:db8::78/128"]
    }
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

step "all are untracked" {
  apply "ssh and http for the world" {}

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
  start "download" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    sends    = "to"
  }
  start "upload" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    sends    = "from"
  }
  start "ssh of the office" {
    protocol = "tcp"
    from     = "office"
    to       = "server"
    port     = 22
  }
  start "http" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
  }
  wait "3s" {}

  expect "ssh" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "download" {
    traffic = "allowed"
    tracked = false
  }
  expect "upload" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh of the office" {
    traffic = "allowed"
    tracked = false
  }
  expect "http" {
    traffic = "allowed"
    tracked = false
  }
}

step "ssh is for the office alone: the client's sessions are cut, whoever sends" {
  apply "ssh for the office" {}
  wait "5s" {}

  expect "ssh" {
    traffic = "cut"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "cut"
    tracked = false
  }
  expect "download" {
    traffic = "cut"
    tracked = false
  }
  expect "upload" {
    traffic = "cut"
    tracked = false
  }
}

step "nothing else is touched" {
  wait "1s" {}

  expect "ssh of the office" {
    traffic = "survives"
    tracked = true
    over    = "ssh is for the office alone: the client's sessions are cut, whoever sends"
  }
  expect "http" {
    traffic = "survives"
    tracked = false
    over    = "ssh is for the office alone: the client's sessions are cut, whoever sends"
  }

  check "a new ssh of the client" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    traffic  = "refused"
  }
  check "a new ssh of the office" {
    protocol = "tcp"
    from     = "office"
    to       = "server"
    port     = 22
    traffic  = "allowed"
    tracked  = true
  }
  check "a new http of the client" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 80
    traffic  = "allowed"
    tracked  = false
  }
  check "the server opens something to the client" {
    protocol = "tcp"
    from     = "server"
    to       = "client"
    port     = 22
    traffic  = "allowed"
    tracked  = true
  }
}

step "the rule comes back: everybody may connect at once, and TCP sends again what was cut off" {
  apply "ssh and http for the world" {}

  check "a new ssh" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    traffic  = "allowed"
    tracked  = false
  }

  wait {
    flow   = "ssh"
    passed = 5
    over   = "step"
  }
  wait {
    flow   = "ssh over IPv6"
    passed = 5
    over   = "step"
  }
  wait {
    flow   = "upload"
    passed = 5
    over   = "step"
  }

  expect "ssh" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh over IPv6" {
    traffic = "allowed"
    tracked = false
  }
  expect "upload" {
    traffic = "allowed"
    tracked = false
  }
  expect "ssh of the office" {
    traffic = "allowed"
    tracked = false
  }
}
