title = "Who is silent for too long does not come back"

# A second here is two minutes: 350 s are 3 s, and 30 s are 1 s.
speed = 120

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "ssh, database and syslog" {
  security_group "server" {
    ingress "ssh" {
      protocol    = "tcp"
      ports       = [22]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "database" {
      protocol    = "tcp"
      ports       = [5432]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "syslog" {
      protocol    = "udp"
      ports       = [514]
      cidr_blocks = ["192.0.2.0/24"]
    }
    ingress "voice" {
      protocol    = "udp"
      ports       = [4000]
      cidr_blocks = ["192.0.2.0/24"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.server]
    connection_tracking {
      tcp_established_timeout = 350
    }
  }
}

policy "database and syslog alone" {
  security_group "server" {
    ingress "database" {
      protocol    = "tcp"
      ports       = [5432]
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
      tcp_established_timeout = 350
    }
  }
}

step "seven flows: some talk every minute or more often, some every seven minutes" {
  apply "ssh, database and syslog" {}

  start "ssh that talks" {
    protocol = "tcp"
    port     = 22
    from     = "client"
    to       = "server"
    interval = "60s"
  }
  start "ssh that is silent" {
    protocol = "tcp"
    port     = 22
    from     = "client"
    to       = "server"
    interval = "420s"
  }
  start "database session that talks" {
    protocol = "tcp"
    port     = 5432
    from     = "client"
    to       = "server"
    interval = "60s"
  }
  start "database session that is silent" {
    protocol = "tcp"
    port     = 5432
    from     = "client"
    to       = "server"
    interval = "420s"
  }
  start "voice that talks" {
    protocol = "udp"
    port     = 4000
    from     = "client"
    to       = "server"
    interval = "10s"
  }
  start "voice that is silent" {
    protocol = "udp"
    port     = 4000
    from     = "client"
    to       = "server"
    interval = "420s"
  }
  start "syslog that is silent" {
    protocol = "udp"
    port     = 514
    from     = "client"
    to       = "server"
    sends    = "from"
    interval = "420s"
  }
  wait "20s" {}

  expect "ssh that is silent" {
    traffic = "allowed"
    tracked = true
    timeout = "350s"
  }
  expect "voice that is silent" {
    traffic = "allowed"
    tracked = true
  }
}

step "no rule for ssh and voice any more: they go on as long as they are not silent for too long" {
  apply "database and syslog alone" {}
  wait "500s" {}

  expect "ssh that talks" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh that is silent" {
    traffic = "cut"
    tracked = false
  }
  expect "voice that talks" {
    traffic = "survives"
    tracked = true
  }
  expect "voice that is silent" {
    traffic = "cut"
    tracked = false
  }
}

step "where the rule stands, a datagram opens the flow anew, and a segment of TCP does not" {
  expect "syslog that is silent" {
    over    = "no rule for ssh and voice any more: they go on as long as they are not silent for too long"
    traffic = "survives"
  }
  expect "database session that is silent" {
    over    = "no rule for ssh and voice any more: they go on as long as they are not silent for too long"
    traffic = "cut"
    tracked = false
  }
  expect "database session that talks" {
    over    = "no rule for ssh and voice any more: they go on as long as they are not silent for too long"
    traffic = "survives"
    tracked = true
  }
  check "a new database session" {
    protocol = "tcp"
    port     = 5432
    from     = "client"
    to       = "server"
    traffic  = "allowed"
    tracked  = true
  }
}
