# CodeDeploy by itself: what must hold whatever the numbers are, and which numbers are refused.

mock_provider "aws" {
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mocked" }
  }
}

variables {
  name         = "smtp-proxy-production"
  region       = "us-east-1"
  account_id   = "123456789012"
  cluster_name = "smtp-proxy-production"
  services = {
    submission = {
      balancer           = "nlb"
      service_name       = "submission"
      listener_arn       = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/net/nlb/0123456789abcdef/0123456789abcdef"
      target_group_names = ["sub-blue", "sub-green"]
    }
    api = {
      balancer           = "alb"
      service_name       = "api"
      listener_arn       = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/app/alb/0123456789abcdef/0123456789abcdef"
      target_group_names = ["api-blue", "api-green"]
    }
  }
}

run "settings" {
  command = plan

  module {
    source = "./tests/settings"
  }
}

run "codedeploy" {
  module {
    source = "./modules/codedeploy"
  }

  variables {
    settings       = run.settings.codedeploy
    task_role_arns = ["arn:aws:iam::123456789012:role/task"]
    alarm_names    = { submission = ["no-healthy-host", "refused"] }
  }

  assert {
    condition     = aws_codedeploy_deployment_group.service["submission"].deployment_config_name == "CodeDeployDefault.ECSAllAtOnce"
    error_message = "Behind a network load balancer all traffic moves at once."
  }

  assert {
    condition     = aws_codedeploy_deployment_group.service["api"].deployment_config_name == "CodeDeployDefault.ECSCanary10Percent5Minutes"
    error_message = "Requests move by a canary."
  }

  assert {
    condition     = aws_codedeploy_deployment_group.service["submission"].alarm_configuration[0].enabled && aws_codedeploy_deployment_group.service["submission"].alarm_configuration[0].alarms == toset(["no-healthy-host", "refused"])
    error_message = "The service's alarms stop its deployment."
  }

  assert {
    condition     = !aws_codedeploy_deployment_group.service["api"].alarm_configuration[0].enabled
    error_message = "Without alarms nothing is watched, and AWS takes no empty list."
  }

  assert {
    condition = contains([
      for statement in jsondecode(aws_iam_role_policy.main.policy).Statement : statement.Resource if statement.Action[0] == "iam:PassRole"
    ], ["arn:aws:iam::123456789012:role/task"])
    error_message = "Roles of tasks are passed on, and no other."
  }

  assert {
    condition = anytrue([
      for statement in jsondecode(aws_iam_role_policy.main.policy).Statement :
      contains(statement.Resource, "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener-rule/app/alb/0123456789abcdef/0123456789abcdef/*")
    ])
    error_message = "Rules of its listeners are CodeDeploy's to change."
  }
}

run "somebody_says_when" {
  module {
    source = "./modules/codedeploy"
  }

  variables {
    settings = merge(run.settings.codedeploy, { ready_wait_minutes = 60 })
  }

  assert {
    condition     = aws_codedeploy_deployment_group.service["api"].blue_green_deployment_config[0].deployment_ready_option[0].action_on_timeout == "STOP_DEPLOYMENT"
    error_message = "What nobody agrees to does not happen."
  }
}

run "a_canary_behind_a_network_load_balancer" {
  command = plan

  module {
    source = "./modules/codedeploy"
  }

  variables {
    settings = merge(run.settings.codedeploy, { nlb_config = "CodeDeployDefault.ECSCanary10Percent5Minutes" })
  }

  expect_failures = [var.settings]
}

run "a_config_of_servers" {
  command = plan

  module {
    source = "./modules/codedeploy"
  }

  variables {
    settings = merge(run.settings.codedeploy, { alb_config = "CodeDeployDefault.HalfAtATime" })
  }

  expect_failures = [var.settings]
}

run "no_way_back" {
  command = plan

  module {
    source = "./modules/codedeploy"
  }

  variables {
    settings = merge(run.settings.codedeploy, { termination_wait_minutes = 0 })
  }

  expect_failures = [var.settings]
}

run "no_rollback_on_alarm" {
  command = plan

  module {
    source = "./modules/codedeploy"
  }

  variables {
    settings = merge(run.settings.codedeploy, { rollback_events = ["DEPLOYMENT_FAILURE"] })
  }

  expect_failures = [var.settings]
}

run "eleven_alarms" {
  command = plan

  module {
    source = "./modules/codedeploy"
  }

  variables {
    settings    = run.settings.codedeploy
    alarm_names = { submission = [for each in range(11) : "alarm-${each}"] }
  }

  expect_failures = [var.alarm_names]
}
