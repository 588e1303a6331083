variable "name" {
  description = "Prefix of every name: project and environment."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name must be 2 to 31 lower-case letters, digits and hyphens, and begin with a letter."
  }
}

variable "account_id" {
  description = "The AWS account: in the name of the bucket, and in ARNs that are not known before."
  type        = string
}

variable "region" {
  description = "The region of logs and tasks."
  type        = string
}

variable "vpc_id" {
  description = "Where the services' names are known."
  type        = string
}

variable "subnet_ids" {
  description = "Networks of the tasks."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups by role (security.groups of stack.yaml)."
  type        = map(string)
}

variable "ports" {
  description = "Section ports of stack.yaml: port by name."
  type        = map(number)
}

variable "proxy_networks" {
  description = "Networks of the load balancer, from which a PROXY header is believed."
  type        = list(string)
}

variable "target_group_arns" {
  description = "The target group that a service begins with: submission, submissions, acme, api, dashboard."
  type        = map(string)

  validation {
    condition     = alltrue([for service in setintersection(keys(var.services), ["api", "dashboard"]) : contains(keys(var.target_group_arns), service)])
    error_message = "api.enabled and dashboard.enabled need alb.enabled: nobody could reach them."
  }
}

variable "database" {
  description = "Hosts of Postgres (the proxy's and the primary's own), its roles and what rds-db:connect calls it, the master's secret and RDS Proxy's, and their key."
  type = object({
    host                 = string
    direct_host          = string
    name                 = string
    owner                = string
    user                 = string
    resource_id          = string
    secret_arn           = string
    kms_key_arn          = string
    services_read_master = bool
    proxy                = bool
    proxy_user           = string
    proxy_resource_id    = string
    proxy_secret_arn     = string
  })
}

variable "cache" {
  description = "Configuration endpoint of the cache, its name and its user for IAM, and the two ARNs of elasticache:Connect."
  type = object({
    host      = string
    name      = string
    user      = string
    group_arn = string
    user_arn  = string
  })
}

variable "image_version" {
  description = "Tag or digest (sha256:...) of the image in the stack's own repository, for the first apply alone: afterwards deployments say it."
  type        = string

  validation {
    condition     = var.image_version != "latest" && can(regex("^(sha256:[0-9a-f]{64}|[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$", var.image_version))
    error_message = "image_version must be a tag other than latest, which says nothing, or a digest (sha256: and 64 hexadecimal digits)."
  }
}

variable "hostname" {
  description = "Host name that applications submit mail to; empty: localhost, and no certificate is asked for."
  type        = string
}

variable "zone_id" {
  description = "The Route 53 zone of the host name, for DNS-01; empty: HTTP-01 alone."
  type        = string
}

variable "smarthost_host" {
  description = "Host that mail is delivered through; empty: as the application's default, or its routes."
  type        = string
}

variable "smarthost_secret_arn" {
  description = "Secret with the smarthost's username and password; empty: none."
  type        = string
}

variable "smarthost_kms_key_arn" {
  description = "Key of smarthost_secret_arn, where it is one of your own; empty: AWS's own key of Secrets Manager."
  type        = string
  default     = ""
}

variable "ses_arns" {
  description = "ARNs of SES that the worker may send with; empty: it may not call SES."
  type        = list(string)
}

variable "services" {
  description = "Sections submission, submissions, worker, certs, api and dashboard of stack.yaml, of which those that are enabled: CPU units, MiB, tasks."
  type = map(object({
    command              = list(string)
    cpu                  = number
    memory               = number
    min_tasks            = number
    max_tasks            = number
    connections_per_task = optional(number)
    smtp_max_connections = optional(number)
    db_pool_size         = optional(number)
    backlog_per_task     = optional(number)
    requests_per_task    = optional(number)
    latency_p95_seconds  = optional(number)
    spot                 = optional(bool, false)
  }))

  # "Task CPU and memory", Amazon ECS developer guide: MiB by CPU units.
  validation {
    condition = alltrue([
      for of in values(var.services) : contains(lookup({
        "256"  = [512, 1024, 2048]
        "512"  = range(1024, 4097, 1024)
        "1024" = range(2048, 8193, 1024)
        "2048" = range(4096, 16385, 1024)
        "4096" = range(8192, 30721, 1024)
      }, tostring(of.cpu), []), of.memory)
    ])
    error_message = "cpu and memory of a service must be a pair that Fargate takes, such as 256 and 512, 512 and 1024, 1024 and 2048."
  }

  validation {
    condition     = alltrue([for of in values(var.services) : of.min_tasks >= 1 && of.min_tasks <= of.max_tasks])
    error_message = "min_tasks of a service must be at least 1, and no more than its max_tasks."
  }
}

variable "migrate" {
  description = "Section migrate of stack.yaml: CPU units, MiB."
  type = object({
    command = list(string)
    cpu     = number
    memory  = number
  })
}

variable "settings" {
  description = "Section ecs of stack.yaml: seconds, minutes, days, percent, counts."
  type = object({
    platform_version              = string
    container_insights            = bool
    log_retention_days            = number
    image_keep_count              = number
    stop_timeout_seconds          = number
    deployment_minimum_percent    = number
    deployment_maximum_percent    = number
    health_check_interval_seconds = number
    health_check_timeout_seconds  = number
    health_check_retries          = number
    health_check_start_seconds    = number
    health_check_grace_seconds    = number
    session_max_seconds           = number
    protection_minutes            = number
    nofile                        = number
    secret_recovery_days          = number
  })

  validation {
    condition     = var.settings.container_insights
    error_message = "ecs.container_insights must be true: services scale by the count of their tasks, which nothing else sends."
  }

  validation {
    condition     = var.settings.stop_timeout_seconds >= 115 && var.settings.stop_timeout_seconds <= 120
    error_message = "ecs.stop_timeout_seconds must be 115 to 120: Fargate gives no more, and the services drain for 110."
  }

  validation {
    condition     = var.settings.health_check_timeout_seconds > 4 && var.settings.health_check_timeout_seconds < var.settings.health_check_interval_seconds
    error_message = "ecs.health_check_timeout_seconds must be more than the 4 s that `smtp-proxy healthcheck` waits, and less than ecs.health_check_interval_seconds."
  }

  validation {
    condition     = var.settings.session_max_seconds > 0 && var.settings.protection_minutes >= 1 && var.settings.protection_minutes <= 2880
    error_message = "ecs.session_max_seconds must be more than 0, and ecs.protection_minutes 1 to 2880: a session without an end protects its task without an end."
  }
}

variable "pressure" {
  description = "Section pressure of stack.yaml: messages."
  type = object({
    ready_depth_high = number
    ready_depth_low  = number
  })

  validation {
    condition     = var.pressure.ready_depth_low >= 0 && var.pressure.ready_depth_low <= var.pressure.ready_depth_high
    error_message = "pressure.ready_depth_low must not be above pressure.ready_depth_high."
  }
}

variable "api_balancer" {
  description = "What metrics call the load balancer of the API, and its two target groups; empty where there is none."
  type = object({
    arn_suffix                = string
    target_group_arn_suffixes = list(string)
  })
  default = { arn_suffix = "", target_group_arn_suffixes = [] }
}

variable "scaling" {
  description = "Section scaling of stack.yaml: seconds, minutes, percent of CPU, tasks."
  type = object({
    metric_period_seconds      = number
    metric_delay_seconds       = number
    task_start_seconds         = number
    cpu_out_percent            = number
    cpu_out_minutes            = number
    cpu_out_tasks              = number
    cpu_in_percent             = number
    cpu_in_minutes             = number
    cpu_in_tasks               = number
    in_target_share            = number
    in_busy_percent            = number
    out_cooldown_seconds       = number
    in_cooldown_seconds        = number
    worker_in_cooldown_seconds = number
    predictive                 = bool
    prewarm = map(object({
      service   = string
      cron      = string
      min_tasks = number
    }))
  })

  validation {
    condition     = var.scaling.metric_period_seconds == 60
    error_message = "scaling.metric_period_seconds must be 60: ECS and the application send their metrics once a minute."
  }

  validation {
    condition     = var.scaling.cpu_in_percent > 0 && var.scaling.cpu_in_percent < var.scaling.cpu_out_percent && var.scaling.cpu_out_percent <= 100
    error_message = "scaling.cpu_in_percent must be below scaling.cpu_out_percent, or tasks come and go."
  }

  validation {
    condition     = var.scaling.in_target_share > 0 && var.scaling.in_target_share <= 1
    error_message = "scaling.in_target_share must be above 0 and at most 1: beyond the aim CPU would take away the tasks that target tracking adds."
  }

  validation {
    condition     = var.scaling.in_busy_percent > 0 && var.scaling.in_busy_percent <= 100
    error_message = "scaling.in_busy_percent must be above 0 and at most 100: beyond it workers would go that all have as much as they can do."
  }

  validation {
    condition     = !var.scaling.predictive
    error_message = "scaling.predictive must be false: the AWS provider 5.100 has no predictive policies. docs/decisions/0037 says how one is made beside the stack."
  }

  validation {
    condition     = alltrue([for each in values(var.scaling.prewarm) : startswith(each.cron, "cron(")])
    error_message = "scaling.prewarm: cron must be such as \"cron(45 7 ? * MON-FRI *)\", in UTC."
  }

  validation {
    condition     = alltrue([for each in values(var.scaling.prewarm) : try(each.min_tasks >= 1 && each.min_tasks <= var.services[each.service].max_tasks, false)])
    error_message = "scaling.prewarm: service must be one that is enabled, and min_tasks 1 to its max_tasks."
  }
}

variable "alerts" {
  description = "Topic that the issuer tells of certificates which can not be had, and the topic's key; empty: nobody."
  type = object({
    topic_arn   = string
    kms_key_arn = string
  })
  default = { topic_arn = "", kms_key_arn = "" }
}

variable "alarm_names" {
  description = "By service, the alarms that take a deployment back; of those that roll. They must be there: ECS refuses others."
  type        = map(list(string))
  default     = {}
}
