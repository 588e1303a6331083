# ---- keys and access

resource "aws_kms_key" "main" {
  description         = "${var.name}: PostgreSQL at rest, its master password, Performance Insights"
  enable_key_rotation = true
  # The longest there is: without the key no snapshot can be restored, and this is for how long it can be had back.
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "main" {
  name          = "alias/${var.name}-rds"
  target_key_id = aws_kms_key.main.key_id
}

resource "aws_iam_role" "monitoring" {
  name = "${var.name}-rds-monitoring"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

# ---- the database

resource "aws_db_subnet_group" "main" {
  name        = var.name
  description = "Networks without a way out"
  subnet_ids  = var.subnet_ids
}

resource "aws_db_parameter_group" "main" {
  name        = "${var.name}-${var.settings.parameter_family}"
  family      = var.settings.parameter_family
  description = "The connection budget, TLS alone, and what is logged"

  parameter {
    name         = "max_connections"
    value        = tostring(var.settings.max_connections)
    apply_method = "pending-reboot"
  }

  parameter {
    name         = "rds.force_ssl"
    value        = "1"
    apply_method = "immediate"
  }

  # A 250 is spoken after the commit; the commit has reached the disk.
  parameter {
    name         = "synchronous_commit"
    value        = "on"
    apply_method = "immediate"
  }

  parameter {
    name         = "idle_in_transaction_session_timeout"
    value        = tostring(var.settings.idle_in_transaction_timeout_ms)
    apply_method = "immediate"
  }

  parameter {
    name         = "log_min_duration_statement"
    value        = tostring(var.settings.log_min_duration_ms)
    apply_method = "immediate"
  }

  # Parameters of statements are logged by nothing: they hold mail.
  parameter {
    name         = "log_parameter_max_length"
    value        = "0"
    apply_method = "immediate"
  }

  parameter {
    name         = "log_parameter_max_length_on_error"
    value        = "0"
    apply_method = "immediate"
  }
}

# RDS would make them itself, to be kept for ever.
resource "aws_cloudwatch_log_group" "postgresql" {
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${var.name}/${each.key}"
  retention_in_days = var.settings.log_retention_days
}

# The final snapshot is called after the key that it can be restored with, which is another each time the stack is made:
# RDS refuses a name that a snapshot of an earlier time has.
resource "aws_db_instance" "primary" {
  identifier                            = var.name
  engine                                = "postgres"
  engine_version                        = var.settings.engine_version
  auto_minor_version_upgrade            = true
  instance_class                        = var.settings.instance_class
  allocated_storage                     = var.settings.allocated_storage
  max_allocated_storage                 = var.settings.max_allocated_storage
  storage_type                          = var.settings.storage_type
  storage_encrypted                     = true
  kms_key_id                            = aws_kms_key.main.arn
  db_name                               = var.settings.database_name
  username                              = var.settings.master_username
  manage_master_user_password           = true
  master_user_secret_kms_key_id         = aws_kms_key.main.key_id
  iam_database_authentication_enabled   = true
  port                                  = var.port
  multi_az                              = var.settings.multi_az
  publicly_accessible                   = false
  db_subnet_group_name                  = aws_db_subnet_group.main.name
  vpc_security_group_ids                = var.security_group_ids
  parameter_group_name                  = aws_db_parameter_group.main.name
  ca_cert_identifier                    = "rds-ca-rsa2048-g1"
  backup_retention_period               = var.settings.backup_retention_days
  backup_window                         = var.settings.backup_window
  maintenance_window                    = var.settings.maintenance_window
  copy_tags_to_snapshot                 = true
  delete_automated_backups              = false
  deletion_protection                   = var.settings.deletion_protection
  skip_final_snapshot                   = var.settings.skip_final_snapshot
  final_snapshot_identifier             = "${var.name}-final-${aws_kms_key.main.key_id}"
  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]
  performance_insights_enabled          = true
  performance_insights_kms_key_id       = aws_kms_key.main.arn
  performance_insights_retention_period = var.settings.performance_insights_retention_days
  monitoring_interval                   = var.settings.monitoring_interval
  monitoring_role_arn                   = aws_iam_role.monitoring.arn

  depends_on = [aws_cloudwatch_log_group.postgresql, aws_iam_role_policy_attachment.monitoring]
}

# ---- RDS Proxy, where the budget asks for it. Tasks log in to it by IAM, and it to Postgres as a role with a password.

# Made without a value, so that no state holds one: `smtp-proxy migrate` makes the password up (MIGRATE_PROXY_SECRET).
resource "aws_secretsmanager_secret" "proxy" {
  count = var.settings.proxy ? 1 : 0

  name                    = "${var.name}/database-proxy"
  description             = "What RDS Proxy logs in to Postgres with, as ${var.settings.proxy_username}"
  kms_key_id              = aws_kms_key.main.arn
  recovery_window_in_days = var.settings.proxy_secret_recovery_days
}

resource "aws_iam_role" "proxy" {
  count = var.settings.proxy ? 1 : 0

  name = "${var.name}-rds-proxy"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "rds.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "proxy" {
  count = var.settings.proxy ? 1 : 0

  name = "read-password"
  role = aws_iam_role.proxy[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = [aws_secretsmanager_secret.proxy[0].arn]
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = [aws_kms_key.main.arn]
      },
    ]
  })
}

resource "aws_db_proxy" "main" {
  count = var.settings.proxy ? 1 : 0

  name                   = var.name
  engine_family          = "POSTGRESQL"
  require_tls            = true
  idle_client_timeout    = var.settings.proxy_idle_client_timeout
  role_arn               = aws_iam_role.proxy[0].arn
  vpc_subnet_ids         = var.subnet_ids
  vpc_security_group_ids = var.security_group_ids

  auth {
    auth_scheme = "SECRETS"
    iam_auth    = "REQUIRED"
    secret_arn  = aws_secretsmanager_secret.proxy[0].arn
  }
}

resource "aws_db_proxy_default_target_group" "main" {
  count = var.settings.proxy ? 1 : 0

  db_proxy_name = aws_db_proxy.main[0].name

  connection_pool_config {
    max_connections_percent = var.settings.proxy_max_connections_percent
  }
}

resource "aws_db_proxy_target" "main" {
  count = var.settings.proxy ? 1 : 0

  db_proxy_name          = aws_db_proxy.main[0].name
  target_group_name      = aws_db_proxy_default_target_group.main[0].name
  db_instance_identifier = aws_db_instance.primary.identifier
}
