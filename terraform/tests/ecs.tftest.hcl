# The services by themselves: what must hold whatever the numbers are, and which numbers are refused.

mock_provider "aws" {
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mocked" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:mocked" }
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
  name                 = "smtp-proxy-test"
  account_id           = "123456789012"
  region               = "us-east-1"
  vpc_id               = "vpc-a"
  subnet_ids           = ["subnet-a", "subnet-b"]
  security_group_ids   = { smtp = "sg-smtp", worker = "sg-worker", certs = "sg-certs" }
  proxy_networks       = ["10.0.0.0/24"]
  image_version        = "1.0.0"
  hostname             = ""
  zone_id              = ""
  smarthost_host       = ""
  smarthost_secret_arn = ""
  ses_arns             = []
  migrate              = { command = ["migrate"], cpu = 256, memory = 512 }

  target_group_arns = {
    submission  = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/submission/0123456789abcdef"
    submissions = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/submissions/0123456789abcdef"
    acme        = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/acme/0123456789abcdef"
  }

  database = {
    host                 = "db.example.com"
    direct_host          = "db.example.com"
    name                 = "smtp_proxy"
    owner                = "the_owner"
    user                 = "the_app"
    resource_id          = "db-ABCDEFGHIJKL"
    secret_arn           = "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds-AbCdEf"
    kms_key_arn          = "arn:aws:kms:us-east-1:123456789012:key/11111111-1111-1111-1111-111111111111"
    services_read_master = false
    proxy                = false
    proxy_user           = "the_proxy"
    proxy_resource_id    = ""
    proxy_secret_arn     = ""
  }

  cache = {
    host      = "cache.example.com"
    name      = "mocked"
    user      = "tasks"
    group_arn = "arn:aws:elasticache:us-east-1:123456789012:replicationgroup:mocked"
    user_arn  = "arn:aws:elasticache:us-east-1:123456789012:user:mocked"
  }
}

run "settings" {
  command = plan

  module {
    source = "./tests/settings"
  }
}

run "ecs" {
  module {
    source = "./modules/ecs"
  }

  variables {
    services = { submission = run.settings.submission, submissions = run.settings.submissions, worker = run.settings.worker, certs = run.settings.certs }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    scaling  = run.settings.scaling
    ports    = run.settings.ports
  }

  assert {
    condition     = alltrue([for each in aws_ecs_task_definition.main : each.runtime_platform[0].cpu_architecture == "ARM64" && contains(each.requires_compatibilities, "FARGATE")])
    error_message = "Tasks run on Fargate, on ARM64."
  }

  assert {
    condition     = alltrue([for each in aws_ecs_task_definition.main : !can(jsondecode(each.container_definitions)[0].secrets)])
    error_message = "What a container finds in `secrets` is in its environment."
  }

  assert {
    condition = alltrue([
      for service, each in aws_iam_role_policy.task : !strcontains(each.policy, "secret:rds-") &&
      strcontains(each.policy, "\"arn:aws:rds-db:us-east-1:123456789012:dbuser:db-ABCDEFGHIJKL/the_app\"")
    ])
    error_message = "Services log in as a role of their own by IAM, and can not read the master's secret."
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.migrate.policy, "secret:rds-") && !strcontains(aws_iam_role_policy.migrate.policy, "rds-db:connect")
    error_message = "Migrations alone log in as the master."
  }

  assert {
    condition     = alltrue([for each in aws_ecs_service.rolling : each.deployment_circuit_breaker[0].rollback])
    error_message = "What rolls goes back by itself."
  }

  assert {
    condition     = alltrue([for each in aws_ecs_service.blue_green : each.deployment_controller[0].type == "CODE_DEPLOY" && length(each.load_balancer) == 1])
    error_message = "What CodeDeploy deploys has one target group."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.main["worker"].container_definitions)[0].image == "123456789012.dkr.ecr.us-east-1.amazonaws.com/mocked:1.0.0"
    error_message = "The image is the stack's own, by tag or digest."
  }

  assert {
    condition     = aws_appautoscaling_target.main["submission"].max_capacity == 20 && aws_appautoscaling_target.main["worker"].max_capacity == 10 && !contains(keys(aws_appautoscaling_target.main), "certs")
    error_message = "No service scales beyond its maximum, and the issuer does not scale."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.cpu_out["worker"].threshold == 70 && aws_cloudwatch_metric_alarm.cpu_in["worker"].threshold == 30
    error_message = "CPU scales out above 70 % and in below 30 %."
  }

  assert {
    condition     = aws_ecr_repository.main.image_tag_mutability == "IMMUTABLE"
    error_message = "A tag says one image, for ever."
  }
}

run "behind_the_proxy_and_for_one_step_as_the_master_too" {
  module {
    source = "./modules/ecs"
  }

  variables {
    services = { submission = run.settings.submission, worker = run.settings.worker }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    scaling  = run.settings.scaling
    ports    = run.settings.ports
    database = {
      host                 = "proxy.example.com"
      direct_host          = "db.example.com"
      name                 = "smtp_proxy"
      owner                = "the_owner"
      user                 = "the_app"
      resource_id          = "db-ABCDEFGHIJKL"
      secret_arn           = "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds-AbCdEf"
      kms_key_arn          = "arn:aws:kms:us-east-1:123456789012:key/11111111-1111-1111-1111-111111111111"
      services_read_master = true
      proxy                = true
      proxy_user           = "the_proxy"
      proxy_resource_id    = "prx-0123456789abcdef0"
      proxy_secret_arn     = "arn:aws:secretsmanager:us-east-1:123456789012:secret:proxy-AbCdEf"
    }
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.task["worker"].policy, "dbuser:prx-0123456789abcdef0/the_proxy\"") && !strcontains(aws_iam_role_policy.task["worker"].policy, "secret:proxy-")
    error_message = "Services log in to RDS Proxy by IAM; its secret is its own."
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.task["worker"].policy, "secret:rds-")
    error_message = "With rds.services_read_master tasks of the release before can start."
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.migrate.policy, "secretsmanager:PutSecretValue")
    error_message = "Migrations make up the password of RDS Proxy."
  }
}

run "ecs_refuses_a_pair_of_no_task" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = merge(run.settings.worker, { memory = 768 }) }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    scaling  = run.settings.scaling
    ports    = run.settings.ports
  }

  expect_failures = [var.services]
}

run "ecs_refuses_a_minimum_above_the_maximum" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = merge(run.settings.worker, { min_tasks = 11 }) }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    scaling  = run.settings.scaling
    ports    = run.settings.ports
  }

  expect_failures = [var.services]
}

run "ecs_refuses_what_fargate_and_sessions_do_not_take" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = run.settings.worker }
    settings = merge(run.settings.ecs, { stop_timeout_seconds = 300 })
    pressure = merge(run.settings.pressure, { ready_depth_low = 60000 })
    scaling  = run.settings.scaling
    ports    = run.settings.ports
  }

  expect_failures = [var.settings, var.pressure]
}

run "ecs_refuses_latest" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services      = { worker = run.settings.worker }
    settings      = run.settings.ecs
    pressure      = run.settings.pressure
    scaling       = run.settings.scaling
    ports         = run.settings.ports
    image_version = "latest"
  }

  expect_failures = [var.image_version]
}

run "ecs_refuses_to_scale_in_beyond_its_aim" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = run.settings.worker }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    ports    = run.settings.ports
    scaling  = merge(run.settings.scaling, { in_target_share = 1.1 })
  }

  expect_failures = [var.scaling]
}

run "ecs_refuses_to_scale_in_workers_that_are_all_busy" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = run.settings.worker }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    ports    = run.settings.ports
    scaling  = merge(run.settings.scaling, { in_busy_percent = 101 })
  }

  expect_failures = [var.scaling]
}

run "ecs_refuses_to_scale_by_a_count_that_nobody_sends" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = run.settings.worker }
    settings = merge(run.settings.ecs, { container_insights = false })
    pressure = run.settings.pressure
    ports    = run.settings.ports
    scaling  = run.settings.scaling
  }

  expect_failures = [var.settings]
}

run "ecs_refuses_predictive_scaling" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = run.settings.worker }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    ports    = run.settings.ports
    scaling  = merge(run.settings.scaling, { predictive = true })
  }

  expect_failures = [var.scaling]
}

run "ecs_refuses_an_api_that_nobody_reaches" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    services = { worker = run.settings.worker, api = run.settings.api }
    settings = run.settings.ecs
    pressure = run.settings.pressure
    ports    = run.settings.ports
    scaling  = run.settings.scaling
  }

  expect_failures = [var.target_group_arns]
}
