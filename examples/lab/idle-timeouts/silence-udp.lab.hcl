title = "UDP: a silent flow is over, and where a rule stands it begins anew"

# A second here is half a minute: 60 s are 2 s, and 180 s are 6 s.
speed = 30

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "voice and syslog" {
  security_group "server" {
    ingress "voice" {
      protocol    = "udp"
      ports       = [4000]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "syslog" {
      protocol    = "udp"
      ports       = [514]
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.server]
    connection_tracking {
      udp_timeout = 60
    }
  }
}

policy "syslog alone" {
  security_group "server" {
    ingress "syslog" {
      protocol    = "udp"
      ports       = [514]
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.server]
    connection_tracking {
      udp_timeout = 60
    }
  }
}

step "a call that talks, and a call and a logger that are silent for 75 seconds at a time" {
  apply "voice and syslog" {}

  start "voice that talks" {
    protocol = "udp"
    port     = 4000
    from     = "client"
    to       = "server"
    interval = "3s"
  }
  start "voice that is silent" {
    protocol = "udp"
    port     = 4000
    from     = "client"
    to       = "server"
    interval = "75s"
  }
  start "syslog" {
    protocol = "udp"
    port     = 514
    from     = "client"
    to       = "server"
    sends    = "from"
    interval = "75s"
  }
  wait {
    flow   = "voice that talks"
    passed = 2
  }
  wait {
    flow   = "voice that is silent"
    passed = 1
  }

  expect "voice that talks" {
    traffic = "allowed"
    tracked = true
  }
  expect "voice that is silent" {
    traffic = "allowed"
  }
}

step "no rule for voice any more" {
  apply "syslog alone" {}
  wait "100s" {}

  expect "voice that talks" {
    traffic = "survives"
    tracked = true
  }
  expect "voice that is silent" {
    traffic = "cut"
    tracked = false
  }
  expect "syslog" {
    traffic = "survives"
  }
}
