# ---- what CodeDeploy may do: nothing outside this cluster and these listeners

locals {
  tasks = "arn:aws:ecs:${var.region}:${var.account_id}"
}

resource "aws_iam_role" "main" {
  name = "${var.name}-codedeploy"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "codedeploy.amazonaws.com" }
    }]
  })
}

# AWSCodeDeployRoleForECS without what is not used (Lambda, SNS, S3), and with resources where the action knows any.
resource "aws_iam_role_policy" "main" {
  name = "deploy"
  role = aws_iam_role.main.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Effect   = "Allow"
          Action   = ["ecs:DescribeServices", "ecs:UpdateServicePrimaryTaskSet"]
          Resource = [for of in values(var.services) : "${local.tasks}:service/${var.cluster_name}/${of.service_name}"]
        },
        # A set that is being made has no ARN to be named by: what it is made in says the condition.
        {
          Effect   = "Allow"
          Action   = ["ecs:CreateTaskSet", "ecs:DeleteTaskSet"]
          Resource = ["*"]
          Condition = { ArnEquals = {
            "ecs:cluster" = "${local.tasks}:cluster/${var.cluster_name}"
            "ecs:service" = [for of in values(var.services) : "${local.tasks}:service/${var.cluster_name}/${of.service_name}"]
          } }
        },
        {
          Effect = "Allow"
          Action = ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyRule"]
          Resource = distinct(flatten([
            for of in values(var.services) : [of.listener_arn, "${replace(of.listener_arn, ":listener/", ":listener-rule/")}/*"]
          ]))
        },
        {
          Effect = "Allow"
          Action = [
            "cloudwatch:DescribeAlarms",
            "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeRules",
            "elasticloadbalancing:DescribeTargetGroups",
          ]
          Resource = ["*"]
        },
      ],
      [
        for arns in [var.task_role_arns] : {
          Effect    = "Allow"
          Action    = ["iam:PassRole"]
          Resource  = arns
          Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
        } if length(arns) > 0
      ],
    )
  })
}

# ---- a group a service, since a group has one listener and its two target groups

resource "aws_codedeploy_app" "main" {
  name             = var.name
  compute_platform = "ECS"
}

resource "aws_codedeploy_deployment_group" "service" {
  for_each = var.services

  app_name               = aws_codedeploy_app.main.name
  deployment_group_name  = each.key
  service_role_arn       = aws_iam_role.main.arn
  deployment_config_name = each.value.balancer == "nlb" ? var.settings.nlb_config : var.settings.alb_config

  deployment_style {
    deployment_type   = "BLUE_GREEN"
    deployment_option = "WITH_TRAFFIC_CONTROL"
  }

  ecs_service {
    cluster_name = var.cluster_name
    service_name = each.value.service_name
  }

  load_balancer_info {
    target_group_pair_info {
      prod_traffic_route {
        listener_arns = [each.value.listener_arn]
      }

      target_group {
        name = each.value.target_group_names[0]
      }

      target_group {
        name = each.value.target_group_names[1]
      }
    }
  }

  blue_green_deployment_config {
    deployment_ready_option {
      action_on_timeout    = var.settings.ready_wait_minutes > 0 ? "STOP_DEPLOYMENT" : "CONTINUE_DEPLOYMENT"
      wait_time_in_minutes = var.settings.ready_wait_minutes
    }

    terminate_blue_instances_on_deployment_success {
      action                           = "TERMINATE"
      termination_wait_time_in_minutes = var.settings.termination_wait_minutes
    }
  }

  # An alarm takes the traffic back for as long as the old tasks are there, and one that can not be read stops the deployment.
  alarm_configuration {
    enabled                   = length(lookup(var.alarm_names, each.key, [])) > 0
    alarms                    = lookup(var.alarm_names, each.key, [])
    ignore_poll_alarm_failure = false
  }

  auto_rollback_configuration {
    enabled = true
    events  = var.settings.rollback_events
  }

  # Without its permissions a deployment fails.
  depends_on = [aws_iam_role_policy.main]
}
