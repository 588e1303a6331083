# ---- key

resource "aws_kms_key" "main" {
  description             = "${var.name}: the cache at rest"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "main" {
  name          = "alias/${var.name}-elasticache"
  target_key_id = aws_kms_key.main.key_id
}

# ---- who may log in

# By IAM: tokens of 15 minutes signed with the task role, so that there is no password to keep, rotate or find in a state.
# The name must be the id. Nothing that rules the node itself, and no command that walks all keys.
resource "aws_elasticache_user" "tasks" {
  user_id       = "${var.name}-tasks"
  user_name     = "${var.name}-tasks"
  engine        = var.settings.engine
  access_string = "on ~* &* +@all -@admin -@dangerous +info +cluster|slots +cluster|shards +cluster|nodes"

  authentication_mode {
    type = "iam"
  }
}

# Redis has a user `default` in every group, who needs no password unless replaced: this one may do nothing. Valkey has none.
resource "aws_elasticache_user" "default" {
  count = var.settings.engine == "redis" ? 1 : 0

  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off -@all"

  authentication_mode {
    type = "no-password-required"
  }
}

resource "aws_elasticache_user_group" "main" {
  user_group_id = var.name
  engine        = var.settings.engine
  user_ids      = concat([aws_elasticache_user.tasks.user_id], aws_elasticache_user.default[*].user_id)
}

# ---- the cache

resource "aws_elasticache_subnet_group" "main" {
  name        = var.name
  description = "Networks without a way out"
  subnet_ids  = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "main" {
  name        = "${var.name}-${var.settings.parameter_family}"
  family      = var.settings.parameter_family
  description = "Cluster mode, and nothing is evicted"

  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }

  parameter {
    name  = "maxmemory-policy"
    value = var.settings.maxmemory_policy
  }
}

resource "aws_cloudwatch_log_group" "slow" {
  name              = "/${var.name}/elasticache-slow"
  retention_in_days = var.settings.log_retention_days
}

resource "aws_elasticache_replication_group" "main" {
  replication_group_id = var.name
  description          = "The stream email-processing: ids of mail that is ready"
  engine               = var.settings.engine
  engine_version       = var.settings.engine_version
  # The version is a whole one here: where AWS has gone on to the next, this file asks for an older one, and the provider
  # makes that of a new cache.
  auto_minor_version_upgrade = false
  node_type                  = var.settings.node_type
  num_node_groups            = var.settings.node_groups
  replicas_per_node_group    = var.settings.replicas_per_node_group
  parameter_group_name       = aws_elasticache_parameter_group.main.name
  port                       = var.port
  subnet_group_name          = aws_elasticache_subnet_group.main.name
  security_group_ids         = var.security_group_ids
  user_group_ids             = [aws_elasticache_user_group.main.user_group_id]
  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.main.arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  automatic_failover_enabled = true
  multi_az_enabled           = true
  snapshot_retention_limit   = var.settings.snapshot_retention_days
  snapshot_window            = var.settings.snapshot_window
  maintenance_window         = var.settings.maintenance_window

  log_delivery_configuration {
    destination      = aws_cloudwatch_log_group.slow.name
    destination_type = "cloudwatch-logs"
    log_format       = "json"
    log_type         = "slow-log"
  }
}
