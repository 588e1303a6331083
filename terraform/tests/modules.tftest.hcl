# Each module by itself: what must hold whatever the numbers are, and which numbers are refused.

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
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mocked-AbCdEf" }
  }
}

variables {
  name               = "smtp-proxy-test"
  subnet_ids         = ["subnet-a", "subnet-b"]
  security_group_ids = ["sg-a"]
}

run "settings" {
  command = plan

  module {
    source = "./tests/settings"
  }
}

run "rds" {
  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = run.settings.rds
  }

  assert {
    condition     = aws_db_instance.primary.storage_encrypted
    error_message = "Mail at rest is encrypted."
  }

  assert {
    condition     = aws_db_instance.primary.manage_master_user_password && aws_db_instance.primary.password == null
    error_message = "RDS makes the password; no state holds it."
  }

  assert {
    condition     = aws_db_instance.primary.iam_database_authentication_enabled
    error_message = "Tasks log in by IAM."
  }

  assert {
    condition     = !aws_db_instance.primary.publicly_accessible
    error_message = "The database has no public address."
  }

  assert {
    condition     = contains([for p in aws_db_parameter_group.main.parameter : "${p.name}=${p.value}"], "max_connections=900")
    error_message = "The connection budget is the parameter group's."
  }

  assert {
    condition     = output.endpoint == aws_db_instance.primary.address
    error_message = "Without a proxy tasks talk to the primary."
  }
}

run "rds_behind_a_proxy" {
  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = merge(run.settings.rds, { proxy = true })
  }

  assert {
    condition     = output.endpoint == aws_db_proxy.main[0].endpoint && output.direct_endpoint == aws_db_instance.primary.address
    error_message = "With a proxy tasks talk to it, and locks go past it."
  }

  assert {
    condition     = aws_db_proxy.main[0].require_tls
    error_message = "The proxy takes TLS alone."
  }

  assert {
    condition     = one(aws_db_proxy.main[0].auth).iam_auth == "REQUIRED" && one(aws_db_proxy.main[0].auth).secret_arn == aws_secretsmanager_secret.proxy[0].arn
    error_message = "Tasks log in to the proxy by IAM, and it to Postgres with a secret of its own, not the master's."
  }
}

run "rds_refuses_one_role_for_two" {
  command = plan

  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = merge(run.settings.rds, { app_username = "smtp_admin" })
  }

  expect_failures = [var.settings]
}

run "rds_refuses_a_replica" {
  command = plan

  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = merge(run.settings.rds, { replica = true })
  }

  expect_failures = [var.settings]
}

run "rds_that_may_be_deleted_leaves_a_snapshot" {
  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = merge(run.settings.rds, { deletion_protection = false })
  }

  assert {
    condition     = !aws_db_instance.primary.deletion_protection && !aws_db_instance.primary.skip_final_snapshot
    error_message = "Protection is taken away to delete the database; what is deleted is kept all the same."
  }

  assert {
    condition     = aws_db_instance.primary.final_snapshot_identifier == "smtp-proxy-test-final-${aws_kms_key.main.key_id}"
    error_message = "The snapshot's name is another each time the stack is made."
  }
}

run "rds_refuses_paid_performance_insights" {
  command = plan

  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = merge(run.settings.rds, { performance_insights_retention_days = 731 })
  }

  expect_failures = [var.settings]
}

run "rds_refuses_a_minor" {
  command = plan

  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = merge(run.settings.rds, { engine_version = "17.2" })
  }

  expect_failures = [var.settings]
}

run "rds_refuses_storage_that_cannot_grow" {
  command = plan

  module {
    source = "./modules/rds"
  }

  variables {
    port     = 5432
    settings = merge(run.settings.rds, { max_allocated_storage = 100 })
  }

  expect_failures = [var.settings]
}

run "elasticache" {
  module {
    source = "./modules/elasticache"
  }

  variables {
    port     = 6379
    settings = run.settings.elasticache
  }

  assert {
    condition     = aws_elasticache_replication_group.main.transit_encryption_mode == "required" && aws_elasticache_replication_group.main.at_rest_encryption_enabled
    error_message = "Encrypted on the way and at rest."
  }

  assert {
    condition     = aws_elasticache_user.tasks.authentication_mode[0].type == "iam" && aws_elasticache_replication_group.main.auth_token == null
    error_message = "Tasks log in by IAM, so that no state holds a password."
  }

  assert {
    condition     = aws_elasticache_user.tasks.user_id == aws_elasticache_user.tasks.user_name
    error_message = "With IAM the name must be the id."
  }
}

run "elasticache_refuses_eviction" {
  command = plan

  module {
    source = "./modules/elasticache"
  }

  variables {
    port     = 6379
    settings = merge(run.settings.elasticache, { maxmemory_policy = "allkeys-lru" })
  }

  expect_failures = [var.settings]
}

run "elasticache_refuses_a_family_of_another_engine" {
  command = plan

  module {
    source = "./modules/elasticache"
  }

  variables {
    port     = 6379
    settings = merge(run.settings.elasticache, { engine = "redis" })
  }

  expect_failures = [var.settings]
}

run "vpc" {
  module {
    source = "./modules/vpc"
  }

  variables {
    region   = "us-east-1"
    zones    = run.settings.general.zones
    settings = run.settings.vpc
    ports    = run.settings.ports
    security = run.settings.security
  }

  override_resource {
    target = aws_iam_role.flow
    values = { arn = "arn:aws:iam::123456789012:role/flow" }
  }

  override_resource {
    target = aws_cloudwatch_log_group.flow
    values = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:flow" }
  }

  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.database), values(aws_subnet.private)) : subnet.map_public_ip_on_launch != true])
    error_message = "Only load balancers and gateways have public addresses."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.rule : rule.from_port == rule.to_port && length(rule.description) > 10])
    error_message = "A rule opens one port and says why."
  }

  assert {
    condition     = aws_route.private["b"].nat_gateway_id == aws_nat_gateway.main["b"].id
    error_message = "A zone's tasks leave through the zone's own gateway."
  }
}

run "vpc_refuses_a_rule_for_nobody" {
  command = plan

  module {
    source = "./modules/vpc"
  }

  variables {
    region   = "us-east-1"
    zones    = run.settings.general.zones
    settings = run.settings.vpc
    ports    = run.settings.ports
    security = {
      groups = run.settings.security.groups
      rules = {
        typo = { group = "wroker", direction = "egress", peer = "world", port = "mx", why = "Delivery to hosts anywhere" }
      }
    }
  }

  expect_failures = [var.security]
}
