title = "Who is silent for too long does not come back"

# A second here is two minutes: 350 s are 3 s.
speed = 120

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "ssh and the database" {
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
  }

  interface "eth0" {
    security_groups = [security_group.server]
    connection_tracking {
      tcp_established_timeout = 350
    }
  }
}

policy "the database alone" {
  security_group "server" {
    ingress "database" {
      protocol    = "tcp"
      ports       = [5432]
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

step "four sessions: two talk every half a minute, two every seven minutes" {
  apply "ssh and the database" {}

  start "ssh that talks" {
    protocol = "tcp"
    port     = 22
    from     = "client"
    to       = "server"
    interval = "30s"
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
    interval = "30s"
  }
  start "database session that is silent" {
    protocol = "tcp"
    port     = 5432
    from     = "client"
    to       = "server"
    interval = "420s"
  }
  wait {
    flow   = "ssh that talks"
    passed = 2
  }
  wait {
    flow   = "ssh that is silent"
    passed = 2
  }
  wait {
    flow   = "database session that talks"
    passed = 2
  }
  wait {
    flow   = "database session that is silent"
    passed = 2
  }

  expect "ssh that is silent" {
    traffic = "allowed"
    tracked = true
  }
}

step "no rule for ssh any more: the session that talks goes on, the silent one does not" {
  apply "the database alone" {}
  wait "500s" {}

  expect "ssh that talks" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh that is silent" {
    traffic = "cut"
    tracked = false
  }
}

step "the rule for the database stands: the silent session is over all the same, and a new one is let in" {
  expect "database session that is silent" {
    over    = "no rule for ssh any more: the session that talks goes on, the silent one does not"
    traffic = "cut"
    tracked = false
  }
  expect "database session that talks" {
    over    = "no rule for ssh any more: the session that talks goes on, the silent one does not"
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
