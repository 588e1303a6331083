variable "name" {
  description = "Prefix of every name: project and environment. Names of target groups have room for 32 characters."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "name must be 2 to 21 lower-case letters, digits and hyphens, and begin with a letter: shorten general.name."
  }
}

variable "vpc_id" {
  description = "The VPC of the tasks."
  type        = string
}

variable "subnet_ids" {
  description = "Public networks, one a zone."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Groups of the load balancer (role nlb)."
  type        = list(string)
}

variable "ports" {
  description = "Section ports of stack.yaml."
  type        = map(number)
}

variable "zone_id" {
  description = "Route 53 zone of the host name; empty: its record is made elsewhere."
  type        = string
}

variable "hostname" {
  description = "Host name of SMTP, the one that certificates are for; empty: no record."
  type        = string
}

variable "settings" {
  description = "Section nlb of stack.yaml."
  type = object({
    cross_zone                        = bool
    deletion_protection               = bool
    idle_timeout_seconds              = number
    proxy_protocol                    = bool
    preserve_client_ip                = bool
    deregistration_delay_seconds      = number
    acme_deregistration_delay_seconds = number
    health_path                       = string
    acme_health_path                  = string
    health_interval_seconds           = number
    health_timeout_seconds            = number
    healthy_threshold                 = number
    unhealthy_threshold               = number
  })

  validation {
    condition     = var.settings.idle_timeout_seconds >= 600 && var.settings.idle_timeout_seconds <= 6000
    error_message = "nlb.idle_timeout_seconds must be 600 to 6000: a client may wait 10 minutes for the answer to its message (RFC 5321 4.5.3.2.6)."
  }

  validation {
    condition     = !(var.settings.proxy_protocol && var.settings.preserve_client_ip)
    error_message = "nlb: with proxy_protocol, preserve_client_ip must be false: tasks believe a PROXY header from the load balancer's networks alone, and would see the client's address as the peer."
  }

  validation {
    condition     = var.settings.deregistration_delay_seconds >= 120 && var.settings.deregistration_delay_seconds <= 3600
    error_message = "nlb.deregistration_delay_seconds must be 120 to 3600: a task that leaves is sent new connections for some 2 minutes yet."
  }

  validation {
    condition     = startswith(var.settings.health_path, "/") && startswith(var.settings.acme_health_path, "/") && var.settings.health_timeout_seconds < var.settings.health_interval_seconds
    error_message = "nlb: health_path and acme_health_path must begin with /, and health_timeout_seconds must be less than health_interval_seconds."
  }

  validation {
    condition     = alltrue([for count in [var.settings.healthy_threshold, var.settings.unhealthy_threshold] : count >= 2 && count <= 10])
    error_message = "nlb: healthy_threshold and unhealthy_threshold must be 2 to 10."
  }
}
