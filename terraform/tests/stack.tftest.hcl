# What matters most of each environment, against a mocked AWS; the provider's own checks run all the same.

mock_provider "aws" {
  mock_resource "aws_db_instance" {
    defaults = {
      master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds-AbCdEf" }]
    }
  }
  # A mocked name is made up by chance, and the provider wants a letter first; AWS calls it that.
  mock_resource "aws_db_proxy_default_target_group" {
    defaults = { name = "default" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/mocked/0123456789abcdef" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/mocked/0123456789abcdef" }
  }
  mock_resource "aws_lb_listener" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/net/mocked/0123456789abcdef/0123456789abcdef" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mocked" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:mocked" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-1:123456789012:mocked" }
  }
  mock_resource "aws_ecr_repository" {
    defaults = {
      arn            = "arn:aws:ecr:us-east-1:123456789012:repository/mocked"
      repository_url = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mocked"
    }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mocked" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mocked-AbCdEf" }
  }
  mock_resource "aws_ecs_cluster" {
    defaults = { arn = "arn:aws:ecs:us-east-1:123456789012:cluster/mocked" }
  }
  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:us-east-1:123456789012:task-definition/mocked:1" }
  }
  mock_resource "aws_appautoscaling_policy" {
    defaults = { arn = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:00000000-0000-0000-0000-000000000000:resource/ecs/service/mocked/mocked:policyName/mocked" }
  }
}

variables {
  account_id    = "123456789012"
  image_version = "1"
}

run "production" {
  variables {
    environment = "production"
  }

  assert {
    condition     = output.database_secret_arn == "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds-AbCdEf"
    error_message = "Migrations are given the secret that RDS made."
  }

  assert {
    condition     = length(output.nat_addresses) == 3
    error_message = "Mail leaves production from each zone by itself."
  }
}

run "dev" {
  variables {
    environment = "dev"
  }

  assert {
    condition     = length(output.nat_addresses) == 1
    error_message = "One gateway is enough for dev."
  }
}

run "no_application_load_balancer_without_processes" {
  command = plan

  variables {
    environment = "production"
  }

  assert {
    condition     = output.http_endpoint == null
    error_message = "API and dashboard have no process yet, so nothing listens for them."
  }
}

run "another_environment" {
  command = plan

  variables {
    environment = "prod"
  }

  expect_failures = [var.environment]
}

run "no_account" {
  command = plan

  variables {
    environment = "dev"
    account_id  = "12345"
  }

  expect_failures = [var.account_id]
}

run "ses_by_wildcard" {
  command = plan

  variables {
    environment = "dev"
    ses_arns    = ["arn:aws:ses:us-east-1:123456789012:identity/*"]
  }

  expect_failures = [var.ses_arns]
}
