locals {
  # By service: its security group, the port that a load balancer reaches, and who deploys it. CodeDeploy takes what has
  # a load balancer and one target group pair; worker and certs roll.
  kinds = {
    submission  = { group = "smtp", port = var.ports.submission, target = "submission", controller = "CODE_DEPLOY" }
    submissions = { group = "smtp", port = var.ports.submissions, target = "submissions", controller = "CODE_DEPLOY" }
    worker      = { group = "worker", port = null, target = null, controller = "ECS" }
    certs       = { group = "certs", port = var.ports.acme, target = "acme", controller = "ECS" }
    api         = { group = "api", port = var.ports.api, target = "api", controller = "CODE_DEPLOY" }
    dashboard   = { group = "dashboard", port = var.ports.dashboard, target = "dashboard", controller = "CODE_DEPLOY" }
  }
  rolling    = { for service, of in var.services : service => of if local.kinds[service].controller == "ECS" }
  blue_green = { for service, of in var.services : service => of if local.kinds[service].controller == "CODE_DEPLOY" }
}

# ---- key, images, certificates, secrets

resource "aws_kms_key" "main" {
  description             = "${var.name}: images, the backup of certificates, and the secret that seals"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "main" {
  name          = "alias/${var.name}-ecs"
  target_key_id = aws_kms_key.main.key_id
}

resource "aws_ecr_repository" "main" {
  name                 = var.name
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.main.arn
  }
}

resource "aws_ecr_lifecycle_policy" "main" {
  repository = aws_ecr_repository.main.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "The last ones are kept, for the way back"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.settings.image_keep_count }
      action       = { type = "expire" }
    }]
  })
}

# Certificates, their keys sealed, from which a fresh store is filled: pyapp/smtp_proxy/certs/backup.py.
resource "aws_s3_bucket" "certificates" {
  bucket = "${var.name}-certificates-${var.account_id}"

  tags = { Name = "${var.name}-certificates" }
}

resource "aws_s3_bucket_versioning" "certificates" {
  bucket = aws_s3_bucket.certificates.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "certificates" {
  bucket = aws_s3_bucket.certificates.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.main.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "certificates" {
  bucket                  = aws_s3_bucket.certificates.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "certificates" {
  bucket = aws_s3_bucket.certificates.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Deny"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.certificates.arn, "${aws_s3_bucket.certificates.arn}/*"]
      Principal = "*"
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

# Made without a value, so that no state holds one: `smtp-proxy secrets new-key` makes it, docs/DEPLOY.md says how.
resource "aws_secretsmanager_secret" "sealing" {
  name                    = "${var.name}/secret-key"
  description             = "What SECRET_KEY_SECRET names: the keys that seal secrets in the database"
  kms_key_id              = aws_kms_key.main.arn
  recovery_window_in_days = var.settings.secret_recovery_days
}

# ---- the cluster, its names, its logs

# What is typed by way of ECS Exec is kept.
resource "aws_cloudwatch_log_group" "exec" {
  name              = "/${var.name}/exec"
  retention_in_days = var.settings.log_retention_days
}

resource "aws_cloudwatch_log_group" "service" {
  for_each = var.services

  name              = "/${var.name}/${each.key}"
  retention_in_days = var.settings.log_retention_days
}

resource "aws_cloudwatch_log_group" "migrate" {
  name              = "/${var.name}/migrate"
  retention_in_days = var.settings.log_retention_days
}

resource "aws_ecs_cluster" "main" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = var.settings.container_insights ? "enabled" : "disabled"
  }

  configuration {
    execute_command_configuration {
      logging = "OVERRIDE"

      log_configuration {
        cloud_watch_log_group_name = aws_cloudwatch_log_group.exec.name
      }
    }
  }
}

resource "aws_ecs_cluster_capacity_providers" "main" {
  cluster_name       = aws_ecs_cluster.main.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]

  default_capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = 1
    weight            = 1
  }
}

resource "aws_service_discovery_private_dns_namespace" "main" {
  name        = "${var.name}.internal"
  description = "Names of services within the VPC"
  vpc         = var.vpc_id
}

# The dashboard finds the API by it; the others are found by the load balancer, or by nobody.
resource "aws_service_discovery_service" "main" {
  for_each = { for service, of in var.services : service => of if service == "api" }

  name = each.key

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.main.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}

# ---- what starts tasks: images and logs, nothing of the application

resource "aws_iam_role" "execution" {
  name               = "${var.name}-ecs-execution"
  assume_role_policy = local.trust
}

resource "aws_iam_role_policy" "execution" {
  name = "start"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"] # AWS knows no resource for it
      },
      {
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = [aws_ecr_repository.main.arn]
      },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = concat([for service in sort(keys(var.services)) : "${aws_cloudwatch_log_group.service[service].arn}:*"], ["${aws_cloudwatch_log_group.migrate.arn}:*"])
      },
    ]
  })
}

# ---- what a task may do: a role for each service, of these grants

locals {
  trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
    }]
  })

  grants = {
    # ECS Exec. AWS knows no resource for these.
    exec = [
      {
        Action = [
          "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
          "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
          "logs:DescribeLogGroups",
        ]
        Resource = ["*"]
      },
      {
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.exec.arn}:*"]
      },
    ]
    # By IAM, as one role each of Postgres itself and of RDS Proxy; and as the master no longer (decision 0043).
    database = [{ Action = ["rds-db:connect"], Resource = local.logins }]
    # For one step, of those alone that there were before.
    master = [for grant in local.read_master : grant if var.database.services_read_master]
    migrate = concat(local.read_master, [
      for grant in [
        { Action = ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"], Resource = [var.database.proxy_secret_arn] },
        { Action = ["kms:GenerateDataKey"], Resource = [var.database.kms_key_arn], Condition = local.by.secretsmanager },
      ] : grant if var.database.proxy
    ])
    sealing = [
      { Action = ["secretsmanager:GetSecretValue"], Resource = [aws_secretsmanager_secret.sealing.arn] },
      { Action = ["kms:Decrypt"], Resource = [aws_kms_key.main.arn], Condition = local.by.secretsmanager },
    ]
    cache = [{ Action = ["elasticache:Connect"], Resource = [var.cache.group_arn, var.cache.user_arn] }]
    # A task asks for itself; its id is not known before.
    protection = [{
      Action   = ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"]
      Resource = ["arn:aws:ecs:${var.region}:${var.account_id}:task/${var.name}/*"]
    }]
    smarthost = [
      for grant in [
        { Action = ["secretsmanager:GetSecretValue"], Resource = [var.smarthost_secret_arn] },
        { Action = ["kms:Decrypt"], Resource = [var.smarthost_kms_key_arn], Condition = local.by.smarthost },
      ] : grant if grant.Resource[0] != ""
    ]
    # The topic is encrypted: who publishes has a key of its data made.
    alerts = [
      for grant in [
        { Action = ["sns:Publish"], Resource = [var.alerts.topic_arn] },
        { Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.alerts.kms_key_arn], Condition = local.by.sns },
      ] : grant if var.alerts.topic_arn != ""
    ]
    # SES asks for SendRawEmail where the API's SendEmail brings the message as it is, and of each thing that is named:
    # the identity, the configuration set, the tenant. `doctor` asks for the account's quota, which has no resource.
    ses = [
      for grant in [
        { Action = ["ses:SendEmail", "ses:SendRawEmail"], Resource = var.ses_arns },
        { Action = ["ses:GetAccount"], Resource = ["*"] },
      ] : grant if length(var.ses_arns) > 0
    ]
    # To list it tells a certificate that is not there from one that may not be read.
    backup = [
      { Action = ["s3:GetObject", "s3:PutObject"], Resource = ["${aws_s3_bucket.certificates.arn}/*"] },
      { Action = ["s3:ListBucket"], Resource = [aws_s3_bucket.certificates.arn] },
      { Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [aws_kms_key.main.arn], Condition = local.by.s3 },
    ]
    # Of the zone the one name that DNS-01 asks for, and nothing else. The id of a change is not known before.
    dns = [
      for grant in [
        {
          Action   = ["route53:ChangeResourceRecordSets"]
          Resource = ["arn:aws:route53:::hostedzone/${var.zone_id}"]
          Condition = {
            "ForAllValues:StringEquals" = {
              "route53:ChangeResourceRecordSetsNormalizedRecordNames" = ["_acme-challenge.${lower(var.hostname)}"]
              "route53:ChangeResourceRecordSetsRecordTypes"           = ["TXT"]
              "route53:ChangeResourceRecordSetsActions"               = ["UPSERT", "DELETE"]
            }
          }
        },
        { Action = ["route53:GetChange"], Resource = ["arn:aws:route53:::change/*"] },
      ] : grant if var.zone_id != "" && var.hostname != ""
    ]
  }
  logins = concat(
    ["arn:aws:rds-db:${var.region}:${var.account_id}:dbuser:${var.database.resource_id}/${var.database.user}"],
    var.database.proxy ? ["arn:aws:rds-db:${var.region}:${var.account_id}:dbuser:${var.database.proxy_resource_id}/${var.database.proxy_user}"] : [],
  )
  read_master = [
    { Action = ["secretsmanager:GetSecretValue"], Resource = [var.database.secret_arn] },
    { Action = ["kms:Decrypt"], Resource = [var.database.kms_key_arn], Condition = local.by.secretsmanager },
  ]
  # Keys are used by way of the service that keeps what they encrypt, and by no call of the task's own.
  by = {
    for service, host in {
      secretsmanager = "secretsmanager.${var.region}"
      smarthost      = "secretsmanager.${try(split(":", var.smarthost_secret_arn)[3], var.region)}"
      sns            = "sns.${var.region}"
      s3             = "s3.${var.region}"
    } : service => { StringEquals = { "kms:ViaService" = "${host}.amazonaws.com" } }
  }
  granted = {
    submission  = ["exec", "database", "master", "sealing", "cache", "protection"]
    submissions = ["exec", "database", "master", "sealing", "cache", "protection"]
    worker      = ["exec", "database", "master", "sealing", "cache", "protection", "smarthost", "ses"]
    certs       = ["exec", "database", "master", "sealing", "backup", "dns", "alerts"]
    api         = ["exec", "database"]
    dashboard   = ["exec"]
  }
}

resource "aws_iam_role" "task" {
  for_each = var.services

  name               = "${var.name}-${each.key}"
  assume_role_policy = local.trust
}

resource "aws_iam_role_policy" "task" {
  for_each = var.services

  name = each.key
  role = aws_iam_role.task[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      for grant in flatten([for name in local.granted[each.key] : local.grants[name]]) : merge({ Effect = "Allow" }, grant)
    ]
  })
}

resource "aws_iam_role" "migrate" {
  name               = "${var.name}-migrate"
  assume_role_policy = local.trust
}

resource "aws_iam_role_policy" "migrate" {
  name = "migrate"
  role = aws_iam_role.migrate.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for grant in local.grants.migrate : merge({ Effect = "Allow" }, grant)]
  })
}

# ---- task definitions

locals {
  data  = "/var/lib/smtp-proxy"
  image = "${aws_ecr_repository.main.repository_url}${startswith(var.image_version, "sha256:") ? "@" : ":"}${var.image_version}"

  # Written by the application or by ECS Exec; everything else of a container can not be written to. The second and third
  # are the agent's, of ECS Exec.
  volumes = { data = local.data, ssm-lib = "/var/lib/amazon", ssm-log = "/var/log/amazon" }

  protection = {
    TASK_PROTECTION         = "on"
    TASK_PROTECTION_MINUTES = tostring(var.settings.protection_minutes)
  }
  cache = {
    REDIS_URL     = "rediss://${var.cache.host}:${var.ports.redis}"
    REDIS_CLUSTER = "true"
    REDIS_IAM     = "${var.cache.user}@${var.cache.name}" # decision 0040
  }
  # The image has AWS's CAs there (devstack/Dockerfile): a token is shown to nobody else.
  verified = { DB_SSLMODE = "verify-full", DB_CA_FILE = "/etc/smtp-proxy/rds-ca.pem" }
  database = merge(
    local.verified,
    {
      # Tasks begin before there is a schema, or a key: who ended then three times would have ECS give the service up.
      START_WAITS = "true"
      DB_HOST     = var.database.host
      DB_PORT     = tostring(var.ports.postgres)
      DB_NAME     = var.database.name
      DB_USER     = var.database.proxy ? var.database.proxy_user : var.database.user
      DB_IAM      = "true"
    },
    var.database.proxy ? { DB_POOLER = "transaction", DB_DIRECT_HOST = var.database.direct_host, DB_DIRECT_USER = var.database.user } : {},
  )
  migration = merge(
    local.verified, local.any,
    {
      DB_HOST       = var.database.direct_host
      DB_PORT       = tostring(var.ports.postgres)
      DB_NAME       = var.database.name
      DB_SECRET     = var.database.secret_arn
      MIGRATE_OWNER = var.database.owner
      MIGRATE_LOGIN = var.database.user
    },
    var.database.proxy ? { MIGRATE_PROXY_LOGIN = var.database.proxy_user, MIGRATE_PROXY_SECRET = var.database.proxy_secret_arn } : {},
  )
  any = {
    SMTP_PROXY_MODE     = "production"
    SMTP_PROXY_DATA_DIR = local.data
    LOG_FORMAT          = "json"
  }
  all = merge(
    local.any,
    {
      METRICS_EMF = "on"
      HEALTH_HOST = "0.0.0.0"
      HEALTH_PORT = tostring(var.ports.health)
    },
    var.hostname == "" ? {} : { SMTP_PROXY_HOSTNAME = var.hostname },
  )
  # What the plan and the budget of connections reckon with, so that they hold for what runs.
  sizes = {
    for service, of in var.services : service => merge(
      of.smtp_max_connections == null ? {} : { SMTP_MAX_CONNECTIONS = tostring(of.smtp_max_connections) },
      of.db_pool_size == null ? {} : { DB_POOL_SIZE = tostring(of.db_pool_size) },
    )
  }
  # What opens the secrets in the database.
  sealing = { SECRET_KEY_SECRET = aws_secretsmanager_secret.sealing.arn }
  smtp = merge(local.database, local.sealing, local.cache, local.protection, {
    SMTP_HOST                    = "0.0.0.0"
    SMTP_STARTTLS_PORT           = tostring(var.ports.submission)
    SMTP_TLS_PORT                = tostring(var.ports.submissions)
    SMTP_PROXY_PROTOCOL_NETWORKS = join(",", var.proxy_networks)
    SMTP_SESSION_MAX_SECONDS     = tostring(var.settings.session_max_seconds)
    INGRESS_READY_DEPTH_HIGH     = tostring(var.pressure.ready_depth_high)
    INGRESS_READY_DEPTH_LOW      = tostring(var.pressure.ready_depth_low)
    TLS_CERT_SOURCE              = "store"
    TLS_CERT_DIR                 = "${local.data}/certs"
  })
  environment = {
    submission  = local.smtp
    submissions = local.smtp
    worker = merge(
      local.database, local.sealing, local.cache, local.protection,
      var.smarthost_host == "" ? {} : {
        SMARTHOST_HOST = var.smarthost_host
        SMARTHOST_PORT = tostring(var.ports.submission_public)
      },
      var.smarthost_secret_arn == "" ? {} : { SMARTHOST_SECRET = var.smarthost_secret_arn },
    )
    certs = merge(
      local.database, local.sealing,
      {
        ACME_HTTP_HOST     = "0.0.0.0"
        ACME_HTTP_PORT     = tostring(var.ports.acme)
        CERT_BACKUP_BUCKET = aws_s3_bucket.certificates.id
      },
      var.alerts.topic_arn == "" ? {} : { CERT_ALERT_SNS_TOPIC = var.alerts.topic_arn },
      var.hostname == "" ? {} : { ACME_CERTIFICATES = "${var.hostname}${var.zone_id == "" ? "" : "@dns-01"}" },
      var.zone_id == "" ? {} : { ACME_DNS = "route53", ACME_ROUTE53_ZONE_ID = var.zone_id },
    )
    api = merge(local.database, {
      API_HOST = "0.0.0.0"
      API_PORT = tostring(var.ports.api)
    })
    dashboard = {}
  }
}

# No `secrets`: they would be environment variables. The application reads Secrets Manager by the ARNs (decision 0039).
resource "aws_ecs_task_definition" "main" {
  for_each = var.services

  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(each.value.cpu)
  memory                   = tostring(each.value.memory)
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task[each.key].arn
  # A revision that is replaced here is still what a service runs, since services ignore this; ECS starts no task of one
  # that is deregistered.
  skip_destroy = true

  runtime_platform {
    cpu_architecture        = "ARM64"
    operating_system_family = "LINUX"
  }

  volume {
    name = "data"
  }
  volume {
    name = "ssm-lib"
  }
  volume {
    name = "ssm-log"
  }

  container_definitions = jsonencode([{
    name                   = each.key
    image                  = local.image
    essential              = true
    command                = each.value.command
    user                   = "10001"
    readonlyRootFilesystem = true
    stopTimeout            = var.settings.stop_timeout_seconds
    linuxParameters        = { initProcessEnabled = true }
    ulimits                = [{ name = "nofile", softLimit = var.settings.nofile, hardLimit = var.settings.nofile }]
    portMappings = [
      for port in compact([local.kinds[each.key].port, var.ports.health]) : { containerPort = tonumber(port), protocol = "tcp" }
    ]
    mountPoints = [
      for name, path in local.volumes : { sourceVolume = name, containerPath = path, readOnly = false }
    ]
    environment = [
      for name, value in merge(local.all, { METRICS_SERVICE = each.key }, local.sizes[each.key], local.environment[each.key]) : { name = name, value = value }
    ]
    # Whether it runs, not whether it is ready: ECS ends whom this fails, and while Postgres is away that were all tasks
    # of all services at once. Load balancers ask for readiness.
    healthCheck = {
      command     = ["CMD", "smtp-proxy", "healthcheck", "--alive", each.value.command[1]]
      interval    = var.settings.health_check_interval_seconds
      timeout     = var.settings.health_check_timeout_seconds
      retries     = var.settings.health_check_retries
      startPeriod = var.settings.health_check_start_seconds
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.service[each.key].name
        awslogs-region        = var.region
        awslogs-stream-prefix = "task"
      }
    }
  }])
}

# Run by hand, before and after deployments: docs/DEPLOY.md. The one task that knows the master.
resource "aws_ecs_task_definition" "migrate" {
  family                   = "${var.name}-migrate"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.migrate.cpu)
  memory                   = tostring(var.migrate.memory)
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.migrate.arn
  # As those of services: what a deployment has registered may be run again.
  skip_destroy = true

  runtime_platform {
    cpu_architecture        = "ARM64"
    operating_system_family = "LINUX"
  }

  volume {
    name = "data"
  }

  container_definitions = jsonencode([{
    name                   = "migrate"
    image                  = local.image
    essential              = true
    command                = var.migrate.command
    user                   = "10001"
    readonlyRootFilesystem = true
    stopTimeout            = var.settings.stop_timeout_seconds
    linuxParameters        = { initProcessEnabled = true }
    mountPoints            = [{ sourceVolume = "data", containerPath = local.data, readOnly = false }]
    environment            = [for name, value in local.migration : { name = name, value = value }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.migrate.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "task"
      }
    }
  }])
}

# ---- services

# Deployed by CodeDeploy, which makes a second set of tasks beside the first. Definition, count and target group are its,
# and scaling's, after the first apply.
resource "aws_ecs_service" "blue_green" {
  for_each = local.blue_green

  name                               = each.key
  cluster                            = aws_ecs_cluster.main.arn
  task_definition                    = aws_ecs_task_definition.main[each.key].arn
  desired_count                      = each.value.min_tasks
  launch_type                        = "FARGATE"
  platform_version                   = var.settings.platform_version
  enable_execute_command             = true
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"
  health_check_grace_period_seconds  = var.settings.health_check_grace_seconds
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_controller {
    type = "CODE_DEPLOY"
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.security_group_ids[local.kinds[each.key].group]]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = var.target_group_arns[local.kinds[each.key].target]
    container_name   = each.key
    container_port   = local.kinds[each.key].port
  }

  dynamic "service_registries" {
    for_each = each.key == "api" ? [aws_service_discovery_service.main["api"].arn] : []

    content {
      registry_arn = service_registries.value
    }
  }

  # What `smtp-proxy deploy` gives the next task set, since ECS takes a change of these from CodeDeploy alone.
  tags = {
    DeployPlatformVersion = var.settings.platform_version
    DeploySubnets         = join(" ", var.subnet_ids)
    DeploySecurityGroups  = var.security_group_ids[local.kinds[each.key].group]
  }

  lifecycle {
    ignore_changes = [desired_count, task_definition, load_balancer, platform_version, network_configuration]
  }

  # A task that starts before its roles may do anything fails, and when the stack is taken down, one that ends has rights.
  depends_on = [aws_iam_role_policy.execution, aws_iam_role_policy.task]
}

# Rolled by ECS, which goes back by itself where new tasks do not come up.
resource "aws_ecs_service" "rolling" {
  for_each = local.rolling

  name                               = each.key
  cluster                            = aws_ecs_cluster.main.arn
  task_definition                    = aws_ecs_task_definition.main[each.key].arn
  desired_count                      = each.value.min_tasks
  platform_version                   = var.settings.platform_version
  enable_execute_command             = true
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"
  health_check_grace_period_seconds  = local.kinds[each.key].target == null ? null : var.settings.health_check_grace_seconds
  deployment_minimum_healthy_percent = var.settings.deployment_minimum_percent
  deployment_maximum_percent         = var.settings.deployment_maximum_percent

  # The first task is never on Spot.
  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = 1
    weight            = 1
  }

  dynamic "capacity_provider_strategy" {
    for_each = each.value.spot ? ["FARGATE_SPOT"] : []

    content {
      capacity_provider = capacity_provider_strategy.value
      weight            = 3
    }
  }

  deployment_controller {
    type = "ECS"
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # Those that are in alarm when a deployment begins are not looked at, so that a repair can be deployed.
  dynamic "alarms" {
    for_each = length(lookup(var.alarm_names, each.key, [])) > 0 ? [var.alarm_names[each.key]] : []

    content {
      enable      = true
      rollback    = true
      alarm_names = alarms.value
    }
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.security_group_ids[local.kinds[each.key].group]]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = local.kinds[each.key].target == null ? [] : [var.target_group_arns[local.kinds[each.key].target]]

    content {
      target_group_arn = load_balancer.value
      container_name   = each.key
      container_port   = local.kinds[each.key].port
    }
  }

  lifecycle {
    ignore_changes = [desired_count, task_definition]
  }

  depends_on = [aws_ecs_cluster_capacity_providers.main, aws_iam_role_policy.execution, aws_iam_role_policy.task]
}

# ---- scaling: each service by itself, between its minimum and its maximum. One that has one task at most has none.

locals {
  scaled        = { for service, of in var.services : service => of if of.max_tasks > 1 }
  service_names = merge({ for key, each in aws_ecs_service.blue_green : key => each.name }, { for key, each in aws_ecs_service.rolling : key => each.name })
  in_cooldown = {
    for service in keys(local.scaled) :
    service => service == "worker" ? var.scaling.worker_in_cooldown_seconds : var.scaling.in_cooldown_seconds
  }
  # The application's own metrics: METRICS_NAMESPACE and METRICS_SERVICE, docs/RUNBOOK.md "CloudWatch".
  namespace = "SmtpProxy"
}

resource "aws_appautoscaling_target" "main" {
  for_each = local.scaled

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.main.name}/${local.service_names[each.key]}"
  min_capacity       = each.value.min_tasks
  max_capacity       = each.value.max_tasks
}

# Target tracking adds tasks and takes none away: cpu_in below does, which knows what waiting tasks are needed for.
# Each task tells of its own sessions, so that the average of the metric is of one task.
resource "aws_appautoscaling_policy" "connections" {
  for_each = { for service, of in local.scaled : service => of if of.connections_per_task != null }

  name               = "${var.name}-${each.key}-connections"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = aws_appautoscaling_target.main[each.key].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.connections_per_task
    scale_out_cooldown = var.scaling.out_cooldown_seconds
    scale_in_cooldown  = local.in_cooldown[each.key]
    disable_scale_in   = true

    customized_metric_specification {
      namespace   = local.namespace
      metric_name = "ActiveConnections"
      statistic   = "Average"

      dimensions {
        name  = "Service"
        value = each.key
      }
    }
  }
}

# The backlog is one, whoever measures it: by tasks that run it falls as they become more, which target tracking needs.
resource "aws_appautoscaling_policy" "backlog" {
  for_each = { for service, of in local.scaled : service => of if of.backlog_per_task != null }

  name               = "${var.name}-${each.key}-backlog"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = aws_appautoscaling_target.main[each.key].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.backlog_per_task
    scale_out_cooldown = var.scaling.out_cooldown_seconds
    scale_in_cooldown  = local.in_cooldown[each.key]
    disable_scale_in   = true

    customized_metric_specification {
      metrics {
        id          = "backlog"
        return_data = false

        metric_stat {
          stat = "Maximum"

          metric {
            namespace   = local.namespace
            metric_name = "QueueDepth"

            dimensions {
              name  = "Service"
              value = each.key
            }
          }
        }
      }

      metrics {
        id          = "tasks"
        return_data = false

        metric_stat {
          stat = "Average"

          metric {
            namespace   = "ECS/ContainerInsights"
            metric_name = "RunningTaskCount"

            dimensions {
              name  = "ClusterName"
              value = aws_ecs_cluster.main.name
            }
            dimensions {
              name  = "ServiceName"
              value = each.key
            }
          }
        }
      }

      metrics {
        id          = "per_task"
        label       = "Backlog of each task"
        expression  = "backlog / tasks"
        return_data = true
      }
    }
  }
}

# Requests of both groups, since CodeDeploy changes which of the two is in service.
resource "aws_appautoscaling_policy" "requests" {
  for_each = { for service, of in local.scaled : service => of if of.requests_per_task != null }

  name               = "${var.name}-${each.key}-requests"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = aws_appautoscaling_target.main[each.key].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.requests_per_task
    scale_out_cooldown = var.scaling.out_cooldown_seconds
    scale_in_cooldown  = local.in_cooldown[each.key]
    disable_scale_in   = true

    customized_metric_specification {
      dynamic "metrics" {
        for_each = var.api_balancer.target_group_arn_suffixes

        content {
          id          = "requests${metrics.key}"
          return_data = false

          metric_stat {
            stat = "Sum"

            metric {
              namespace   = "AWS/ApplicationELB"
              metric_name = "RequestCount"

              dimensions {
                name  = "LoadBalancer"
                value = var.api_balancer.arn_suffix
              }
              dimensions {
                name  = "TargetGroup"
                value = metrics.value
              }
            }
          }
        }
      }

      metrics {
        id          = "tasks"
        return_data = false

        metric_stat {
          stat = "Average"

          metric {
            namespace   = "ECS/ContainerInsights"
            metric_name = "RunningTaskCount"

            dimensions {
              name  = "ClusterName"
              value = aws_ecs_cluster.main.name
            }
            dimensions {
              name  = "ServiceName"
              value = each.key
            }
          }
        }
      }

      metrics {
        id          = "per_task"
        label       = "Requests of each task"
        expression  = "(FILL(requests0, 0) + FILL(requests1, 0)) / tasks"
        return_data = true
      }
    }
  }
}

# Target tracking knows no 30 %: CPU has steps, and alarms of its own.
resource "aws_appautoscaling_policy" "cpu_out" {
  for_each = local.scaled

  name               = "${var.name}-${each.key}-cpu-out"
  policy_type        = "StepScaling"
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = aws_appautoscaling_target.main[each.key].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Average"
    cooldown                = var.scaling.out_cooldown_seconds

    step_adjustment {
      metric_interval_lower_bound = "0"
      scaling_adjustment          = var.scaling.cpu_out_tasks
    }
  }
}

resource "aws_appautoscaling_policy" "cpu_in" {
  for_each = local.scaled

  name               = "${var.name}-${each.key}-cpu-in"
  policy_type        = "StepScaling"
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = aws_appautoscaling_target.main[each.key].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Average"
    cooldown                = local.in_cooldown[each.key]

    step_adjustment {
      metric_interval_upper_bound = "0"
      scaling_adjustment          = -var.scaling.cpu_in_tasks
    }
  }
}

# No data: there are no tasks, or CloudWatch is late. Neither is a reason to scale.
resource "aws_cloudwatch_metric_alarm" "cpu_out" {
  for_each = local.scaled

  alarm_name          = "${var.name}-${each.key}-cpu-out"
  alarm_description   = "Scales ${each.key} out"
  namespace           = "AWS/ECS"
  metric_name         = "CPUUtilization"
  dimensions          = { ClusterName = aws_ecs_cluster.main.name, ServiceName = each.key }
  statistic           = "Average"
  period              = var.scaling.metric_period_seconds
  evaluation_periods  = var.scaling.cpu_out_minutes
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.scaling.cpu_out_percent
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.cpu_out[each.key].arn]
}

locals {
  of_ecs = { for service in keys(local.scaled) : service => tomap({ ClusterName = aws_ecs_cluster.main.name, ServiceName = service }) }
  # Tasks that run, and those that are wanted: a task that was taken away runs on while it drains.
  tasks = {
    for service, of in local.of_ecs : service => [
      { id = "tasks", namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", stat = "Average", dimensions = of },
      { id = "wanted", namespace = "ECS/ContainerInsights", metric = "DesiredTaskCount", stat = "Average", dimensions = of },
    ]
  }
  # What a service scales by beside CPU, of all its tasks together, and how much of it one is to have: as its own policy
  # above. And of workers how many deliveries are under way, in percent of what one has at once.
  aims = merge(
    { for service, of in local.scaled : service => {
      bears = "connections * tasks < ${var.scaling.in_target_share} * ${of.connections_per_task} * left"
      metrics = concat(
        [{ id = "connections", namespace = local.namespace, metric = "ActiveConnections", stat = "Average", dimensions = tomap({ Service = service }) }],
        local.tasks[service],
      )
    } if of.connections_per_task != null },
    { for service, of in local.scaled : service => {
      bears = "(backlog < ${var.scaling.in_target_share} * ${of.backlog_per_task} * left) AND (busy * tasks < ${var.scaling.in_busy_percent} * left)"
      metrics = concat(
        [
          { id = "backlog", namespace = local.namespace, metric = "QueueDepth", stat = "Maximum", dimensions = tomap({ Service = service }) },
          { id = "busy", namespace = local.namespace, metric = "WorkerBusyShare", stat = "Average", dimensions = tomap({ Service = service }) },
        ],
        local.tasks[service],
      )
    } if of.backlog_per_task != null },
    { for service, of in local.scaled : service => {
      bears = "FILL(requests0, 0) + FILL(requests1, 0) < ${var.scaling.in_target_share} * ${of.requests_per_task} * left"
      metrics = concat(
        [for n, group in var.api_balancer.target_group_arn_suffixes : {
          id         = "requests${n}"
          namespace  = "AWS/ApplicationELB"
          metric     = "RequestCount"
          stat       = "Sum"
          dimensions = tomap({ LoadBalancer = var.api_balancer.arn_suffix, TargetGroup = group })
        }],
        local.tasks[service],
      )
    } if of.requests_per_task != null },
  )
}

# CPU, where the tasks that would be left can bear what there is; else 100, so that no task goes that waits for others. It
# is the only policy that takes tasks away.
resource "aws_cloudwatch_metric_alarm" "cpu_in" {
  for_each = local.scaled

  alarm_name          = "${var.name}-${each.key}-cpu-in"
  alarm_description   = "Scales ${each.key} in"
  evaluation_periods  = var.scaling.cpu_in_minutes
  comparison_operator = "LessThanThreshold"
  threshold           = var.scaling.cpu_in_percent
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.cpu_in[each.key].arn]

  metric_query {
    id          = "cpu"
    return_data = !contains(keys(local.aims), each.key)

    metric {
      namespace   = "AWS/ECS"
      metric_name = "CPUUtilization"
      dimensions  = local.of_ecs[each.key]
      stat        = "Average"
      period      = var.scaling.metric_period_seconds
    }
  }

  dynamic "metric_query" {
    for_each = contains(keys(local.aims), each.key) ? local.aims[each.key].metrics : []

    content {
      id          = metric_query.value.id
      return_data = false

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.stat
        period      = var.scaling.metric_period_seconds
      }
    }
  }

  dynamic "metric_query" {
    for_each = contains(keys(local.aims), each.key) ? [local.aims[each.key]] : []

    content {
      id          = "left"
      label       = "Tasks that would be left"
      expression  = "MIN([tasks, wanted]) - ${var.scaling.cpu_in_tasks}"
      return_data = false
    }
  }

  dynamic "metric_query" {
    for_each = contains(keys(local.aims), each.key) ? [local.aims[each.key]] : []

    content {
      id          = "idle"
      label       = "CPU where fewer tasks would do"
      expression  = "IF(${metric_query.value.bears}, cpu, 100)"
      return_data = true
    }
  }
}

# Requests say nothing of how long they take.
resource "aws_appautoscaling_policy" "latency" {
  for_each = { for service, of in local.scaled : service => of if of.latency_p95_seconds != null }

  name               = "${var.name}-${each.key}-latency"
  policy_type        = "StepScaling"
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = aws_appautoscaling_target.main[each.key].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Average"
    cooldown                = var.scaling.out_cooldown_seconds

    step_adjustment {
      metric_interval_lower_bound = "0"
      scaling_adjustment          = var.scaling.cpu_out_tasks
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "latency" {
  for_each = { for service, of in local.scaled : service => of if of.latency_p95_seconds != null }

  alarm_name          = "${var.name}-${each.key}-latency"
  alarm_description   = "Scales ${each.key} out"
  evaluation_periods  = var.scaling.cpu_out_minutes
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.latency_p95_seconds
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.latency[each.key].arn]

  dynamic "metric_query" {
    for_each = var.api_balancer.target_group_arn_suffixes

    content {
      id          = "p95_${metric_query.key}"
      return_data = false

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = "TargetResponseTime"
        dimensions  = { LoadBalancer = var.api_balancer.arn_suffix, TargetGroup = metric_query.value }
        stat        = "p95"
        period      = var.scaling.metric_period_seconds
      }
    }
  }

  metric_query {
    id          = "slowest"
    label       = "p95 of the group that is in service"
    expression  = "MAX([FILL(p95_0, 0), FILL(p95_1, 0)])"
    return_data = true
  }
}

# Known peaks, ahead of them.
resource "aws_appautoscaling_scheduled_action" "prewarm" {
  for_each = var.scaling.prewarm

  name               = "${var.name}-${each.key}"
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = aws_appautoscaling_target.main[each.value.service].resource_id
  schedule           = each.value.cron
  timezone           = "UTC"

  scalable_target_action {
    min_capacity = each.value.min_tasks
  }
}
