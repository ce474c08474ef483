# What differs from place to place. Set it for one run with
#
#   sgc plan --var 'office=["198.51.100.7/32"]'
#
# or in the environment as SGC_VAR_office.

variable "office" {
  description = "the addresses that administrators come from"
  type        = list(string)
  default     = ["203.0.113.1/32"]
}
