variable "name" {
  description = "Prefix of every name: project and environment."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name must be 2 to 31 lower-case letters, digits and hyphens, and begin with a letter."
  }
}

variable "port" {
  description = "Port of the cache (ports.redis of stack.yaml)."
  type        = number
}

variable "subnet_ids" {
  description = "Networks of at least two zones, without a way out."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Groups of the nodes."
  type        = list(string)
}

variable "settings" {
  description = "Section elasticache of stack.yaml."
  type = object({
    engine                  = string
    engine_version          = string
    parameter_family        = string
    node_type               = string
    node_groups             = number
    replicas_per_node_group = number
    maxmemory_policy        = string
    snapshot_retention_days = number
    snapshot_window         = string
    maintenance_window      = string
    log_retention_days      = number
  })

  validation {
    condition     = contains(["valkey", "redis"], var.settings.engine) && startswith(var.settings.parameter_family, var.settings.engine)
    error_message = "elasticache.engine must be valkey or redis, and elasticache.parameter_family one of the same engine (valkey8, redis7)."
  }

  validation {
    condition     = endswith(var.settings.parameter_family, split(".", var.settings.engine_version)[0])
    error_message = "elasticache.parameter_family must be of the major of elasticache.engine_version."
  }

  validation {
    condition     = can(regex("^cache\\.[a-z0-9]+g[a-z]*\\.[a-z0-9]+$", var.settings.node_type))
    error_message = "elasticache.node_type must be of a Graviton family, such as cache.t4g.medium or cache.m7g.large."
  }

  validation {
    condition     = var.settings.node_groups >= 1 && var.settings.replicas_per_node_group >= 1 && var.settings.replicas_per_node_group <= 5
    error_message = "elasticache: at least one node group, with 1 to 5 replicas each: failover needs one."
  }

  validation {
    condition     = var.settings.maxmemory_policy == "noeviction"
    error_message = "elasticache.maxmemory_policy must be noeviction: an evicted stream loses hints of mail that waits."
  }
}
