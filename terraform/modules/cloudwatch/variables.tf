variable "name" {
  description = "Prefix of every name: project and environment. The cluster, the database and the cache are called so too, and are the dimensions of their metrics."
  type        = string
}

variable "environment" {
  description = "The value of the tag Environment, for a budget by tag."
  type        = string
}

variable "region" {
  description = "The region of all metrics."
  type        = string
}

variable "account_id" {
  description = "The account: from no other one anything is published, and its costs are counted."
  type        = string
}

variable "alert_emails" {
  description = "Who is told; each must confirm the mail that AWS sends."
  type        = list(string)

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))]) && length(distinct(var.alert_emails)) == length(var.alert_emails) && length(var.alert_emails) <= 10
    error_message = "alert_emails must be e-mail addresses, such as [\"operators@example.com\"], each once, and 10 at most, which is what a budget takes."
  }
}

variable "services" {
  description = "The services that are enabled: what ECS calls them."
  type        = list(string)
}

variable "container_insights" {
  description = "Whether the cluster counts its tasks (ecs.container_insights)."
  type        = bool
}

variable "balanced" {
  description = "By service that is behind a load balancer: the namespace of its metrics, the load balancer and all target groups in their dimensions."
  type = map(object({
    namespace     = string
    load_balancer = string
    target_groups = list(string)
  }))
}

variable "cache_nodes" {
  description = "Nodes of the cache: node groups, and replicas of each."
  type = object({
    node_groups             = number
    replicas_per_node_group = number
  })
}

variable "wholes" {
  description = "What thresholds with percent_of are parts of: connections, bytes, messages."
  type = object({
    max_connections   = number
    allocated_storage = number
    ready_depth_high  = number
  })
}

variable "alarms" {
  description = "Section alarms of stack.yaml, which says there what each field is."
  type = map(object({
    source            = string
    services          = optional(list(string))
    metric            = optional(string)
    metrics           = optional(map(string))
    expression        = optional(string)
    statistic         = string
    above             = optional(number)
    below             = optional(number)
    percent_of        = optional(string)
    minutes           = number
    breaching_minutes = optional(number)
    period_seconds    = optional(number, 60)
    missing           = string
    why_missing       = string
    rollback          = optional(bool, false)
    groups            = optional(string, "most")
    meaning           = string
  }))

  validation {
    condition     = alltrue([for of in values(var.alarms) : contains(["application", "ecs", "container-insights", "target-groups", "database", "cache"], of.source)])
    error_message = "alarms: source must be application, ecs, container-insights, target-groups, database or cache."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : (of.metric != null) != (of.metrics != null) && (of.metrics != null) == (of.expression != null) && (of.source == "application" || of.metric != null)])
    error_message = "alarms: an alarm has metric, or metrics with an expression over them, which source application alone may have."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : of.groups == "most" || of.groups == "down" && of.source == "target-groups" && of.metric == "HealthyHostCount"])
    error_message = "alarms: groups must be most or down, and down is of source target-groups and its HealthyHostCount alone."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : (of.above != null) != (of.below != null)])
    error_message = "alarms: an alarm has above or below, and not both."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : of.percent_of == null || contains(["max_connections", "allocated_storage", "ready_depth_high"], coalesce(of.percent_of, "-"))])
    error_message = "alarms: percent_of must be max_connections, allocated_storage or ready_depth_high."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : of.period_seconds >= 60 && of.period_seconds % 60 == 0 && of.minutes > 0 && of.minutes * 60 % of.period_seconds == 0 && of.minutes <= 1440])
    error_message = "alarms: period_seconds must be whole minutes, and minutes a multiple of it, 1440 at most: CloudWatch looks back a day."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : of.breaching_minutes == null ? true : of.breaching_minutes > 0 && of.breaching_minutes <= of.minutes && of.breaching_minutes * 60 % of.period_seconds == 0])
    error_message = "alarms: breaching_minutes must be a multiple of period_seconds, and no more than minutes."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : contains(["breaching", "notBreaching", "ignore", "missing"], of.missing) && length(of.why_missing) > 10])
    error_message = "alarms: missing must be breaching, notBreaching, ignore or missing, and why_missing says why."
  }

  validation {
    condition     = alltrue([for of in values(var.alarms) : contains(["Average", "Maximum", "Minimum", "Sum", "SampleCount"], of.statistic)])
    error_message = "alarms: statistic must be Average, Maximum, Minimum, Sum or SampleCount."
  }
}

variable "charts" {
  description = "Section charts of stack.yaml: charts, in their order."
  type = object({
    widgets = list(object({
      title     = string
      source    = string
      services  = optional(list(string))
      metrics   = list(string)
      statistic = string
    }))
  })

  validation {
    condition     = alltrue([for of in var.charts.widgets : contains(["application", "ecs", "container-insights", "target-groups", "database", "cache"], of.source)])
    error_message = "charts: source must be application, ecs, container-insights, target-groups, database or cache."
  }
}

variable "budget" {
  description = "Section budget of stack.yaml: US dollars a month, percent of them."
  type = object({
    monthly_limit_usd = number
    actual_percent    = number
    forecast_percent  = number
    by_tag            = bool
  })

  validation {
    condition     = var.budget.monthly_limit_usd > 0 && var.budget.actual_percent > 0 && var.budget.forecast_percent > 0
    error_message = "budget: monthly_limit_usd, actual_percent and forecast_percent must be more than 0."
  }
}
