# Alarms by themselves: what must hold whatever the numbers are, and which are refused.

mock_provider "aws" {
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-1:123456789012:mocked" }
  }
}

variables {
  name               = "smtp-proxy-test"
  environment        = "test"
  region             = "us-east-1"
  account_id         = "123456789012"
  alert_emails       = ["operators@example.com"]
  services           = ["submission", "worker"]
  container_insights = false
  cache_nodes        = { node_groups = 2, replicas_per_node_group = 1 }
  wholes             = { max_connections = 200, allocated_storage = 1000, ready_depth_high = 50000 }
  balanced = {
    submission = { namespace = "AWS/NetworkELB", load_balancer = "net/nlb/0", target_groups = ["targetgroup/blue/0", "targetgroup/green/0"] }
  }
}

run "settings" {
  command = plan

  module {
    source = "./tests/settings"
  }
}

run "cloudwatch" {
  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = run.settings.alarms
    charts = run.settings.charts
    budget = run.settings.budget
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.metric), values(aws_cloudwatch_metric_alarm.formula)) :
      alarm.alarm_actions == toset([aws_sns_topic.alerts.arn]) && alarm.ok_actions == toset([aws_sns_topic.alerts.arn])
    ])
    error_message = "Every alarm is told, and so is its end."
  }

  assert {
    condition     = length(setintersection(["worker-no-task", "submissions-cpu", "worker-no-healthy-host", "database-cpu-cpu"], concat(keys(aws_cloudwatch_metric_alarm.metric), keys(aws_cloudwatch_metric_alarm.formula)))) == 0
    error_message = "There is no alarm of what has no metrics: a service that is off, tasks that nobody counts, a worker's load balancer."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.metric["database-connections"].threshold == 170 && aws_cloudwatch_metric_alarm.metric["worker-ready-depth"].threshold == 40000
    error_message = "percent_of is a part of the whole."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.formula["submission-unhealthy-host"].datapoints_to_alarm == 3 && aws_cloudwatch_metric_alarm.formula["submission-unhealthy-host"].evaluation_periods == 15
    error_message = "breaching_minutes are some of minutes."
  }

  assert {
    condition     = toset([for key in keys(aws_cloudwatch_metric_alarm.metric) : key if startswith(key, "cache-cpu-")]) == toset(["cache-cpu-0001-001", "cache-cpu-0001-002", "cache-cpu-0002-001", "cache-cpu-0002-002"])
    error_message = "Each node of the cache has its alarms."
  }

  assert {
    condition     = output.alarm_names["submission"] == ["smtp-proxy-test-submission-deferred", "smtp-proxy-test-submission-memory", "smtp-proxy-test-submission-silent", "smtp-proxy-test-submission-group-down", "smtp-proxy-test-submission-no-healthy-host", "smtp-proxy-test-submission-unhealthy-host"]
    error_message = "A deployment is watched by the alarms of its service that say so."
  }

  assert {
    condition = contains([
      for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : widget.properties.metrics if widget.type == "metric" && widget.properties.title == "CPU and memory of tasks, percent"
      ], [
      ["AWS/ECS", "CPUUtilization", "ClusterName", "smtp-proxy-test", "ServiceName", "submission"],
      ["AWS/ECS", "MemoryUtilization", "ClusterName", "smtp-proxy-test", "ServiceName", "submission"],
      ["AWS/ECS", "CPUUtilization", "ClusterName", "smtp-proxy-test", "ServiceName", "worker"],
      ["AWS/ECS", "MemoryUtilization", "ClusterName", "smtp-proxy-test", "ServiceName", "worker"],
    ])
    error_message = "A chart names a metric by namespace, name and dimensions, in this order."
  }

  assert {
    condition     = !contains([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : widget.properties.title], "Running tasks")
    error_message = "A chart that would be empty is left out."
  }
}

run "an_address_that_is_none" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms       = run.settings.alarms
    charts       = run.settings.charts
    budget       = run.settings.budget
    alert_emails = ["operators"]
  }

  expect_failures = [var.alert_emails]
}

run "a_budget_of_nothing" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = run.settings.alarms
    charts = run.settings.charts
    budget = merge(run.settings.budget, { monthly_limit_usd = 0 })
  }

  expect_failures = [var.budget]
}

run "an_alarm_of_another_source" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { source = "lambda" }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_without_a_metric" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { metric = null }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_above_and_below" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { below = 1 }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_of_an_unknown_whole" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { percent_of = "everything" }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_of_half_minutes" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { period_seconds = 30 }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_of_the_worse_of_no_groups" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { groups = "down" }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_of_more_minutes_than_it_looks_at" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { breaching_minutes = 6 }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_without_a_reason" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { why_missing = "" }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}

run "an_alarm_of_a_statistic_that_is_none" {
  command = plan

  module {
    source = "./modules/cloudwatch"
  }

  variables {
    alarms = { backlog-age = merge(run.settings.alarms.backlog-age, { statistic = "p99" }) }
    charts = run.settings.charts
    budget = run.settings.budget
  }

  expect_failures = [var.alarms]
}
