# ---- who is told

# The default key of SNS lets nobody but SNS use it: what CloudWatch publishes would be lost.
resource "aws_kms_key" "main" {
  description             = "${var.name}: alerts"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "Account"
        Effect    = "Allow"
        Action    = ["kms:*"]
        Resource  = ["*"]
        Principal = { AWS = "arn:aws:iam::${var.account_id}:root" }
      }],
      [for service in local.publishers : {
        Sid       = service
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = ["*"]
        Principal = { Service = "${service}.amazonaws.com" }
        Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
      }],
    )
  })
}

resource "aws_kms_alias" "main" {
  name          = "alias/${var.name}-alerts"
  target_key_id = aws_kms_key.main.key_id
}

resource "aws_sns_topic" "alerts" {
  name              = "${var.name}-alerts"
  kms_master_key_id = aws_kms_key.main.arn
}

locals {
  # Services of AWS that publish, of this account alone. The issuer does too, by its role.
  publishers = ["cloudwatch", "budgets"]
}

resource "aws_sns_topic_policy" "alerts" {
  arn = aws_sns_topic.alerts.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for service in local.publishers : {
      Sid       = service
      Effect    = "Allow"
      Action    = ["sns:Publish"]
      Resource  = [aws_sns_topic.alerts.arn]
      Principal = { Service = "${service}.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = each.value
}

# ---- whose metrics there are, by source: a name, the namespace and the dimensions. Names are given, so that nothing of it
# has to be there before: alarms come first, since ECS and CodeDeploy refuse to watch one that is not there.

locals {
  nodes = flatten([
    for group in range(1, var.cache_nodes.node_groups + 1) : [
      for node in range(1, var.cache_nodes.replicas_per_node_group + 2) : format("%04d-%03d", group, node)
    ]
  ])
  targets = {
    # METRICS_NAMESPACE and METRICS_SERVICE, docs/RUNBOOK.md "CloudWatch".
    application = {
      for service in var.services : service => [{ namespace = "SmtpProxy", dimensions = { Service = service } }]
    }
    ecs = {
      for service in var.services : service => [
        { namespace = "AWS/ECS", dimensions = { ClusterName = var.name, ServiceName = service } }
      ]
    }
    container-insights = {
      for service in var.container_insights ? var.services : [] : service => [
        { namespace = "ECS/ContainerInsights", dimensions = { ClusterName = var.name, ServiceName = service } }
      ]
    }
    target-groups = {
      for service, of in var.balanced : service => [
        for group in of.target_groups : {
          namespace  = of.namespace
          dimensions = { LoadBalancer = of.load_balancer, TargetGroup = group }
        }
      ]
    }
    database = {
      database = [{ namespace = "AWS/RDS", dimensions = { DBInstanceIdentifier = var.name } }]
    }
    cache = {
      for node in local.nodes : node => [{ namespace = "AWS/ElastiCache", dimensions = { CacheClusterId = "${var.name}-${node}" } }]
    }
  }
}

# ---- alarms: of each whose metrics there are

locals {
  alarms = merge([
    for key, alarm in var.alarms : {
      for target, series in local.targets[alarm.source] :
      (alarm.source == "database" ? key : alarm.source == "cache" ? "${key}-${target}" : "${target}-${key}") => merge(alarm, {
        target     = target
        series     = series
        threshold  = coalesce(alarm.above, alarm.below) * (alarm.percent_of == null ? 1 : var.wholes[alarm.percent_of] / 100)
        comparison = alarm.above != null ? "GreaterThanThreshold" : "LessThanThreshold"
        periods    = alarm.minutes * 60 / alarm.period_seconds
        needed     = alarm.breaching_minutes == null ? null : alarm.breaching_minutes * 60 / alarm.period_seconds
      }) if alarm.services == null ? true : contains(alarm.services, target)
    }
  ]...)
  plain = { for key, of in local.alarms : key => of if of.metrics == null && of.source != "target-groups" }
  ratios = {
    for key, of in local.alarms : key => merge(of, {
      queries = { for id, metric in of.metrics : id => { metric = metric, series = of.series[0] } }
    }) if of.metrics != null
  }
  # Of both target groups the one that has most, or whether one is down: CodeDeploy empties one of them, and says nothing
  # of which is in service. Down is what has unhealthy hosts and no healthy one: hosts of a group that is on no listener
  # are neither, and so are those that drain.
  hosts = {
    for key, of in local.alarms : key => merge(of, {
      expression = format("%s([%s])", of.groups == "down" ? "MIN" : "MAX", join(", ", [
        for n in range(length(of.series)) : of.groups == "down" ? format("IF(FILL(unhealthy%d, 0) > 0 AND FILL(hosts%d, 0) < 1, 0, 1)", n, n) : format("FILL(hosts%d, 0)", n)
      ]))
      queries = merge(
        { for n, series in of.series : "hosts${n}" => { metric = of.metric, series = series } },
        { for n, series in of.series : "unhealthy${n}" => { metric = "UnHealthyHostCount", series = series } if of.groups == "down" },
      )
    }) if of.source == "target-groups"
  }
  formulas = merge(local.ratios, local.hosts)
}

resource "aws_cloudwatch_metric_alarm" "metric" {
  for_each = local.plain

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.meaning
  namespace           = each.value.series[0].namespace
  metric_name         = each.value.metric
  dimensions          = each.value.series[0].dimensions
  statistic           = each.value.statistic
  period              = each.value.period_seconds
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.needed
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]
}

resource "aws_cloudwatch_metric_alarm" "formula" {
  for_each = local.formulas

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.meaning
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.needed
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alerts.arn]
  ok_actions          = [aws_sns_topic.alerts.arn]

  dynamic "metric_query" {
    for_each = each.value.queries

    content {
      id          = metric_query.key
      return_data = false

      metric {
        namespace   = metric_query.value.series.namespace
        metric_name = metric_query.value.metric
        dimensions  = metric_query.value.series.dimensions
        stat        = each.value.statistic
        period      = each.value.period_seconds
      }
    }
  }

  metric_query {
    id          = "value"
    label       = each.key
    expression  = each.value.expression
    return_data = true
  }
}

# ---- the dashboard

locals {
  charts = [
    for widget in [
      for widget in var.charts.widgets : {
        title     = widget.title
        statistic = widget.statistic
        series = flatten([
          for target, series in local.targets[widget.source] : [
            for each in series : [for metric in widget.metrics : { metric = metric, of = each }]
          ] if widget.services == null ? true : contains(widget.services, target)
        ])
      }
    ] : widget if length(widget.series) > 0
  ]
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type   = "alarm"
        x      = 0
        y      = 0
        width  = 24
        height = 6
        properties = {
          title = "Alarms"
          alarms = concat(
            [for key in keys(local.plain) : aws_cloudwatch_metric_alarm.metric[key].arn],
            [for key in keys(local.formulas) : aws_cloudwatch_metric_alarm.formula[key].arn],
          )
        }
      }],
      [for n, chart in local.charts : {
        type   = "metric"
        x      = 8 * (n % 3)
        y      = 6 + 6 * floor(n / 3)
        width  = 8
        height = 6
        properties = {
          title  = chart.title
          region = var.region
          view   = "timeSeries"
          stat   = chart.statistic
          period = 60
          metrics = [
            for each in chart.series : concat(
              [each.of.namespace, each.metric], flatten([for name, value in each.of.dimensions : [name, value]])
            )
          ]
        }
      }],
    )
  })
}

# ---- the budget

resource "aws_budgets_budget" "monthly" {
  name         = "${var.name}-monthly"
  account_id   = var.account_id
  budget_type  = "COST"
  time_unit    = "MONTHLY"
  limit_amount = tostring(var.budget.monthly_limit_usd)
  limit_unit   = "USD"

  dynamic "cost_filter" {
    for_each = var.budget.by_tag ? [format("user:Environment$%s", var.environment)] : []

    content {
      name   = "TagKeyValue"
      values = [cost_filter.value]
    }
  }

  notification {
    notification_type          = "ACTUAL"
    comparison_operator        = "GREATER_THAN"
    threshold                  = var.budget.actual_percent
    threshold_type             = "PERCENTAGE"
    subscriber_email_addresses = var.alert_emails
    subscriber_sns_topic_arns  = [aws_sns_topic.alerts.arn]
  }

  notification {
    notification_type          = "FORECASTED"
    comparison_operator        = "GREATER_THAN"
    threshold                  = var.budget.forecast_percent
    threshold_type             = "PERCENTAGE"
    subscriber_email_addresses = var.alert_emails
    subscriber_sns_topic_arns  = [aws_sns_topic.alerts.arn]
  }

  # It is tried at once whether the topic takes what is published.
  depends_on = [aws_sns_topic_policy.alerts]
}
