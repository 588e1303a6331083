variable "name" {
  description = "Prefix of every name: project and environment."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name must be 2 to 31 lower-case letters, digits and hyphens, and begin with a letter."
  }
}

variable "port" {
  description = "Port of Postgres (ports.postgres of stack.yaml)."
  type        = number

  validation {
    condition     = var.port >= 1150 && var.port <= 65535
    error_message = "ports.postgres must be between 1150 and 65535, which is what RDS takes."
  }
}

variable "subnet_ids" {
  description = "Networks of at least two zones, without a way out."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Groups of the instances and of RDS Proxy."
  type        = list(string)
}

variable "settings" {
  description = "Section rds of stack.yaml."
  type = object({
    engine_version                      = string
    parameter_family                    = string
    instance_class                      = string
    allocated_storage                   = number
    max_allocated_storage               = number
    storage_type                        = string
    database_name                       = string
    master_username                     = string
    owner_role                          = string
    app_username                        = string
    proxy_username                      = string
    proxy_secret_recovery_days          = number
    services_read_master                = bool
    max_connections                     = number
    idle_in_transaction_timeout_ms      = number
    log_min_duration_ms                 = number
    multi_az                            = bool
    replica                             = bool
    proxy                               = bool
    proxy_max_connections_percent       = number
    proxy_idle_client_timeout           = number
    backup_retention_days               = number
    backup_window                       = string
    maintenance_window                  = string
    performance_insights_retention_days = number
    monitoring_interval                 = number
    deletion_protection                 = bool
    skip_final_snapshot                 = bool
    log_retention_days                  = number
  })

  validation {
    condition     = can(regex("^[0-9]+$", var.settings.engine_version)) && var.settings.parameter_family == "postgres${var.settings.engine_version}"
    error_message = "rds.engine_version is a major alone (17), and rds.parameter_family that of the same major (postgres17)."
  }

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+g[a-z]*\\.[a-z0-9]+$", var.settings.instance_class))
    error_message = "rds.instance_class must be of a Graviton family, such as db.t4g.large or db.m7g.xlarge."
  }

  validation {
    condition = (
      alltrue([for role in [var.settings.owner_role, var.settings.app_username, var.settings.proxy_username] : can(regex("^[a-z_][a-z0-9_]{0,62}$", role))])
      && length(toset([var.settings.master_username, var.settings.owner_role, var.settings.app_username, var.settings.proxy_username])) == 4
    )
    error_message = "rds.master_username, owner_role, app_username and proxy_username are four roles, of lower-case letters, digits and underscores."
  }

  validation {
    condition     = var.settings.max_allocated_storage > var.settings.allocated_storage
    error_message = "rds.max_allocated_storage must be above rds.allocated_storage, or storage never grows."
  }

  validation {
    condition     = var.settings.backup_retention_days >= 1 && var.settings.backup_retention_days <= 35
    error_message = "rds.backup_retention_days must be between 1 and 35: without backups there is no restoring to a moment."
  }

  validation {
    condition     = var.settings.performance_insights_retention_days == 7
    error_message = "rds.performance_insights_retention_days must be 7: longer ones are paid for, and RDS may refuse them since Database Insights takes the place of Performance Insights."
  }

  validation {
    condition     = !var.settings.replica
    error_message = "rds.replica must be false: RDS refuses a read replica of a primary with manage_master_user_password, which keeps the password out of the state. docs/decisions/0036 says what a replica would take."
  }

  validation {
    condition     = contains([0, 1, 5, 10, 15, 30, 60], var.settings.monitoring_interval) && var.settings.monitoring_interval > 0
    error_message = "rds.monitoring_interval must be 1, 5, 10, 15, 30 or 60 seconds."
  }
}
