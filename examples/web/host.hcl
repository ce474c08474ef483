# Which interface of the host has which groups. Interfaces that are not named
# here, and the loopback interface, are left alone.

interface "eth0" {
  security_groups = [security_group.web]
}
