variable "name" {
  description = "Prefix of every name: project and environment. Names of target groups have room for 32 characters."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "name must be 2 to 21 lower-case letters, digits and hyphens, and begin with a letter: shorten general.name."
  }
}

variable "account_id" {
  description = "The AWS account: part of the name of the bucket, and of where logs are written."
  type        = string
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
  description = "Groups of the load balancer (role alb)."
  type        = list(string)
}

variable "ports" {
  description = "Section ports of stack.yaml."
  type        = map(number)
}

variable "zone_id" {
  description = "Route 53 zone of the host name, where ACM looks for its proof."
  type        = string

  validation {
    condition     = var.zone_id != ""
    error_message = "alb.enabled needs the variable zone_id: without the zone there is no certificate, and without a certificate no HTTPS."
  }
}

variable "hostname" {
  description = "Host name of the API and the dashboard, which the certificate is for."
  type        = string

  validation {
    condition     = var.hostname != ""
    error_message = "alb.enabled needs the variable http_hostname: without it there is no certificate, and without a certificate no HTTPS."
  }
}

variable "settings" {
  description = "Section alb of stack.yaml."
  type = object({
    enabled                      = bool
    deletion_protection          = bool
    idle_timeout_seconds         = number
    ssl_policy                   = string
    http2                        = bool
    api_paths                    = list(string)
    api_health_path              = string
    dashboard_health_path        = string
    health_interval_seconds      = number
    health_timeout_seconds       = number
    healthy_threshold            = number
    unhealthy_threshold          = number
    deregistration_delay_seconds = number
    access_log_retention_days    = number
    waf                          = bool
    waf_requests_per_address     = number
  })

  # The provider takes any text, and AWS refuses it at apply.
  validation {
    condition     = can(regex("^ELBSecurityPolicy-TLS13-1-[23]-(Res-)?2021-06$", var.settings.ssl_policy))
    error_message = "alb.ssl_policy must have TLS 1.3 and nothing below 1.2: ELBSecurityPolicy-TLS13-1-2-2021-06, -1-2-Res- or -1-3-."
  }

  validation {
    condition = alltrue([
      for path in concat(var.settings.api_paths, [var.settings.api_health_path, var.settings.dashboard_health_path]) : startswith(path, "/")
    ]) && length(var.settings.api_paths) > 0
    error_message = "alb: api_paths (at least one), api_health_path and dashboard_health_path must begin with /."
  }

  validation {
    condition     = var.settings.health_timeout_seconds < var.settings.health_interval_seconds
    error_message = "alb.health_timeout_seconds must be less than alb.health_interval_seconds."
  }

  validation {
    condition     = var.settings.waf_requests_per_address >= 10
    error_message = "alb.waf_requests_per_address must be at least 10, in 5 minutes."
  }
}
