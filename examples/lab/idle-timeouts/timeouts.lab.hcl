title = "Whose idle timeout is how long"

# At full speed: the entries themselves tell how long they have left.

host "server" {
  managed = true

  interface "eth0" {
    network   = "front"
    addresses = ["192.0.2.10/24"]
  }
  interface "eth1" {
    network   = "back"
    addresses = ["10.0.0.10/24"]
  }
}

host "client" {
  interface "eth0" {
    network   = "front"
    addresses = ["192.0.2.77/24", "192.0.2.200/24"]
  }
}

host "database" {
  interface "eth0" {
    network   = "back"
    addresses = ["10.0.0.20/24"]
  }
}

policy "everybody is tracked" {
  security_group "near" {
    ingress "all" {
      protocol    = "-1"
      cidr_blocks = ["192.0.2.0/24", "10.0.0.0/24"]
    }
    egress "all" {
      protocol    = "-1"
      cidr_blocks = ["192.0.2.0/24", "10.0.0.0/24"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.near]
    connection_tracking {
      tcp_established_timeout = 350
      udp_timeout             = 30
      udp_stream_timeout      = 180
    }
    always_track "balancers" {
      cidr_blocks             = ["192.0.2.200/32"]
      tcp_established_timeout = 100
      udp_stream_timeout      = 120
    }
  }

  interface "eth1" {
    security_groups = [security_group.near]
    connection_tracking {
      tcp_established_timeout = 3600
      udp_timeout             = 60
      udp_stream_timeout      = 90
    }
  }
}

step "TCP: the interface's, and the balancer's own" {
  apply "everybody is tracked" {}

  # Each says one thing and is silent then: while something of TCP is not
  # acknowledged, the kernel gives it no more than five minutes.
  start "tcp on eth0" {
    protocol = "tcp"
    port     = 80
    from     = "client"
    to       = "server"
    source   = "192.0.2.77"
    interval = "60s"
  }
  start "tcp of the balancer" {
    protocol = "tcp"
    port     = 80
    from     = "client"
    to       = "server"
    source   = "192.0.2.200"
    interval = "60s"
  }
  start "tcp on eth1" {
    protocol = "tcp"
    port     = 5432
    from     = "server"
    to       = "database"
    interval = "60s"
  }
  # For the next step: Linux calls UDP a stream after two seconds.
  start "voice on eth0" {
    protocol = "udp"
    port     = 4000
    from     = "client"
    to       = "server"
    source   = "192.0.2.77"
    interval = "100ms"
  }
  start "voice of the balancer" {
    protocol = "udp"
    port     = 4000
    from     = "client"
    to       = "server"
    source   = "192.0.2.200"
    interval = "100ms"
  }
  start "voice on eth1" {
    protocol = "udp"
    port     = 4000
    from     = "server"
    to       = "database"
    interval = "100ms"
  }
  wait {
    flow   = "tcp on eth0"
    passed = 2
  }
  wait {
    flow   = "tcp of the balancer"
    passed = 2
  }
  wait {
    flow   = "tcp on eth1"
    passed = 2
  }
  wait "300ms" {}

  expect "tcp on eth0" {
    traffic = "allowed"
    timeout = "350s"
  }
  expect "tcp of the balancer" {
    traffic = "allowed"
    timeout = "100s"
  }
  expect "tcp on eth1" {
    traffic = "allowed"
    timeout = "3600s"
  }
}

step "UDP: without an answer, and as a stream" {
  wait "2500ms" {}
  start "question on eth0" {
    protocol = "udp"
    port     = 53
    from     = "client"
    to       = "server"
    source   = "192.0.2.77"
    sends    = "from"
    interval = "100ms"
  }
  start "question on eth1" {
    protocol = "udp"
    port     = 53
    from     = "server"
    to       = "database"
    sends    = "from"
    interval = "100ms"
  }
  wait {
    flow   = "question on eth0"
    passed = 2
  }
  wait {
    flow   = "question on eth1"
    passed = 2
  }

  expect "question on eth0" {
    traffic = "allowed"
    timeout = "30s"
  }
  expect "question on eth1" {
    traffic = "allowed"
    timeout = "60s"
  }
  expect "voice on eth0" {
    timeout = "180s"
  }
  expect "voice of the balancer" {
    timeout = "120s"
  }
  expect "voice on eth1" {
    timeout = "90s"
  }
}

step "the rest: ping, and a protocol without ports" {
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "100ms"
  }
  start "protocol 253" {
    protocol = "253"
    from     = "client"
    to       = "server"
    interval = "100ms"
  }
  wait {
    flow   = "ping"
    passed = 2
  }
  wait {
    flow   = "protocol 253"
    passed = 2
  }

  expect "ping" {
    traffic = "allowed"
    timeout = "30s"
  }
  expect "protocol 253" {
    traffic = "allowed"
    timeout = "600s"
  }
}
