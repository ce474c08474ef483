# The security groups of a public web server.
#
# A group is a list of what is allowed. There are no "deny" rules: what no rule
# allows is dropped. Answers to what was allowed always pass, so a rule is only
# needed in the direction in which a connection is opened.

security_group "web" {
  description = "public web server"

  # Who may log in: one address. "/32" means exactly this one.
  ingress "ssh" {
    description = "SSH from the office"
    protocol    = "tcp"
    from_port   = 22
    to_port     = 22
    cidr_blocks = var.office
  }

  # Everybody may see the web pages, over IPv4 and over IPv6.
  ingress "http" {
    description      = "HTTP and HTTPS from anywhere"
    protocol         = "tcp"
    ports            = [80, 443, "8000-8099"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }

  # Ping. ICMP has no ports: from_port is the ICMP type, to_port its code, and
  # -1 is any. The two families have protocols of their own.
  ingress "ping" {
    protocol    = "icmp"
    from_port   = 8 # echo request
    to_port     = -1
    cidr_blocks = ["0.0.0.0/0"]
  }
  ingress "ping6" {
    protocol         = "icmpv6"
    from_port        = 128 # echo request
    to_port          = -1
    ipv6_cidr_blocks = ["::/0"]
  }

  # The server itself may open connections to anywhere, with any protocol.
  # Without an egress rule it could only answer.
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
