variable "name" {
  description = "Prefix of every name: project and environment."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name must be 2 to 31 lower-case letters, digits and hyphens, and begin with a letter."
  }
}

variable "region" {
  description = "The region of the endpoints' service names."
  type        = string
}

variable "zones" {
  description = "Availability zones by the letter that networks are keyed by."
  type        = map(string)

  validation {
    condition     = length(var.zones) == 3 && length(distinct(values(var.zones))) == 3
    error_message = "general.zones must name three different availability zones."
  }
}

variable "settings" {
  description = "Section vpc of stack.yaml."
  type = object({
    cidr                    = string
    public_cidrs            = map(string)
    private_cidrs           = map(string)
    database_cidrs          = map(string)
    nat_zones               = list(string)
    endpoints               = list(string)
    flow_log_retention_days = number
  })

  validation {
    condition     = length(var.settings.nat_zones) > 0 && alltrue([for zone in var.settings.nat_zones : contains(keys(var.settings.public_cidrs), zone)])
    error_message = "vpc.nat_zones must name at least one zone, and only zones that have a public network."
  }

  validation {
    condition = alltrue([
      for cidr in concat([var.settings.cidr], values(var.settings.public_cidrs), values(var.settings.private_cidrs), values(var.settings.database_cidrs)) : can(cidrnetmask(cidr))
    ])
    error_message = "vpc.cidr and the three maps of networks must be IPv4 networks such as 10.40.0.0/16."
  }
}

variable "ports" {
  description = "Section ports of stack.yaml: port by name."
  type        = map(number)

  validation {
    condition     = alltrue([for port in values(var.ports) : port >= 1 && port <= 65535])
    error_message = "Every port must be between 1 and 65535."
  }
}

variable "security" {
  description = "Section security of stack.yaml: security groups by role, and their rules, each with its reason."
  type = object({
    groups = map(string)
    rules = map(object({
      group     = string
      direction = string
      peer      = string
      port      = string
      why       = string
    }))
  })

  validation {
    condition     = alltrue([for rule in values(var.security.rules) : contains(["ingress", "egress"], rule.direction)])
    error_message = "security.rules: direction must be ingress or egress."
  }

  validation {
    condition = alltrue([
      for rule in values(var.security.rules) : contains(keys(var.security.groups), rule.group) && contains(concat(keys(var.security.groups), ["world", "s3"]), rule.peer)
    ])
    error_message = "security.rules: group must be one of security.groups, and peer one of them, world or s3."
  }

  validation {
    condition     = alltrue([for rule in values(var.security.rules) : length(rule.why) >= 10])
    error_message = "security.rules: every rule says why it is there."
  }
}
