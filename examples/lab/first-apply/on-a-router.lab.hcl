title = "The first apply on a router: connections go on from their next packet, if the rules allow them"

# TCP sends again what was lost at its own pace, which no speed changes.
speed = 5

host "router" {
  managed = true
  forward = true

  interface "eth0" {
    network   = "outside"
    addresses = ["192.0.2.1/24", "2001:db8::1/64"]
  }
  interface "eth1" {
    network   = "inside"
    addresses = ["198.51.100.1/24", "2001:db8:1::1/64"]
  }
}

host "client" {
  interface "eth0" {
    network   = "outside"
    addresses = ["192.0.2.77/24", "2001:db8::77/64"]
  }
}

host "server" {
  interface "eth0" {
    network   = "inside"
    addresses = ["198.51.100.10/24", "2001:db8:1::10/64"]
  }
}

policy "first" {
  security_group "web" {
    ingress "ssh" {
      protocol         = "tcp"
      ports            = [22]
      cidr_blocks      = ["192.0.2.77/32"]
      ipv6_cidr_blocks = ["2001:db8::77/128"]
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

step "before sgc, everything passes, and conntrack knows nothing" {
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
  start "telnet" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 23
    sends    = "from"
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
  expect "telnet" {
    traffic = "allowed"
    tracked = false
  }
}

step "the rules allow ssh, and it goes on; they do not allow telnet, whose sockets are not on this host" {
  apply "first" {}
  wait "8s" {}

  expect "ssh" {
    traffic = "survives"
    tracked = true
  }
  expect "ssh over IPv6" {
    traffic = "survives"
    tracked = true
  }
  expect "telnet" {
    traffic = "cut"
    tracked = false
  }
}
