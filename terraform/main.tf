# The AWS stack, in the order in which one thing needs another. pulumi/smtp_proxy_infra/stack.py tells it in the same words.

module "vpc" {
  source = "./modules/vpc"

  name     = local.name
  region   = local.general.region
  zones    = local.general.zones
  settings = local.settings.vpc
  ports    = local.settings.ports
  security = local.settings.security
}

module "rds" {
  source = "./modules/rds"

  name               = local.name
  settings           = local.settings.rds
  port               = local.settings.ports.postgres
  subnet_ids         = values(module.vpc.database_subnet_ids)
  security_group_ids = [module.vpc.security_group_ids["database"]]
}

module "elasticache" {
  source = "./modules/elasticache"

  name               = local.name
  settings           = local.settings.elasticache
  port               = local.settings.ports.redis
  subnet_ids         = values(module.vpc.database_subnet_ids)
  security_group_ids = [module.vpc.security_group_ids["cache"]]
}

module "nlb" {
  source = "./modules/nlb"

  name               = local.name
  settings           = local.settings.nlb
  ports              = local.settings.ports
  vpc_id             = module.vpc.vpc_id
  subnet_ids         = values(module.vpc.public_subnet_ids)
  security_group_ids = [module.vpc.security_group_ids["nlb"]]
  zone_id            = var.zone_id
  hostname           = var.smtp_hostname
}

module "alb" {
  source = "./modules/alb"
  count  = local.settings.alb.enabled ? 1 : 0

  name               = local.name
  account_id         = var.account_id
  settings           = local.settings.alb
  ports              = local.settings.ports
  vpc_id             = module.vpc.vpc_id
  subnet_ids         = values(module.vpc.public_subnet_ids)
  security_group_ids = [module.vpc.security_group_ids["alb"]]
  zone_id            = var.zone_id
  hostname           = var.http_hostname
}

locals {
  services = {
    for service in ["submission", "submissions", "worker", "certs", "api", "dashboard"] :
    service => local.settings[service] if local.settings[service].enabled
  }
}

module "cloudwatch" {
  source = "./modules/cloudwatch"

  name               = local.name
  environment        = var.environment
  region             = local.general.region
  account_id         = var.account_id
  alert_emails       = var.alert_emails
  services           = keys(local.services)
  container_insights = local.settings.ecs.container_insights
  alarms             = local.settings.alarms
  charts             = local.settings.charts
  budget             = local.settings.budget
  cache_nodes        = local.settings.elasticache

  wholes = {
    max_connections   = local.settings.rds.max_connections
    allocated_storage = local.settings.rds.allocated_storage * pow(1024, 3)
    ready_depth_high  = local.settings.pressure.ready_depth_high
  }

  balanced = merge(
    {
      for group, suffixes in module.nlb.target_group_arn_suffixes : (group == "acme" ? "certs" : group) => {
        namespace     = "AWS/NetworkELB"
        load_balancer = module.nlb.arn_suffix
        target_groups = suffixes
      } if contains(keys(local.services), group == "acme" ? "certs" : group)
    },
    [
      for alb in module.alb : {
        for service, suffixes in alb.target_group_arn_suffixes : service => {
          namespace     = "AWS/ApplicationELB"
          load_balancer = alb.arn_suffix
          target_groups = suffixes
        } if contains(keys(local.services), service)
      }
    ]...
  )
}

module "ecs" {
  source = "./modules/ecs"

  name                  = local.name
  account_id            = var.account_id
  region                = local.general.region
  services              = local.services
  migrate               = local.settings.migrate
  settings              = local.settings.ecs
  scaling               = local.settings.scaling
  pressure              = local.settings.pressure
  ports                 = local.settings.ports
  vpc_id                = module.vpc.vpc_id
  subnet_ids            = values(module.vpc.private_subnet_ids)
  security_group_ids    = module.vpc.security_group_ids
  proxy_networks        = values(local.settings.vpc.public_cidrs)
  target_group_arns     = merge(module.nlb.target_group_arns, one(module.alb[*].target_group_arns))
  image_version         = var.image_version
  hostname              = var.smtp_hostname
  zone_id               = var.zone_id
  smarthost_host        = var.smarthost_host
  smarthost_secret_arn  = var.smarthost_secret_arn
  smarthost_kms_key_arn = var.smarthost_kms_key_arn
  ses_arns              = var.ses_arns

  alarm_names = module.cloudwatch.alarm_names

  alerts = {
    topic_arn   = module.cloudwatch.topic_arn
    kms_key_arn = module.cloudwatch.kms_key_arn
  }

  api_balancer = {
    arn_suffix                = try(module.alb[0].arn_suffix, "")
    target_group_arn_suffixes = try(module.alb[0].target_group_arn_suffixes["api"], [])
  }

  database = {
    host                 = module.rds.endpoint
    direct_host          = module.rds.direct_endpoint
    name                 = local.settings.rds.database_name
    owner                = local.settings.rds.owner_role
    user                 = local.settings.rds.app_username
    resource_id          = module.rds.resource_id
    secret_arn           = module.rds.secret_arn
    kms_key_arn          = module.rds.kms_key_arn
    services_read_master = local.settings.rds.services_read_master
    proxy                = local.settings.rds.proxy
    proxy_user           = local.settings.rds.proxy_username
    proxy_resource_id    = module.rds.proxy_resource_id
    proxy_secret_arn     = module.rds.proxy_secret_arn
  }

  cache = {
    host      = module.elasticache.endpoint
    name      = module.elasticache.replication_group_id
    user      = module.elasticache.user_id
    group_arn = module.elasticache.replication_group_arn
    user_arn  = module.elasticache.user_arn
  }
}

module "codedeploy" {
  source = "./modules/codedeploy"

  name         = local.name
  region       = local.general.region
  account_id   = var.account_id
  settings     = local.settings.codedeploy
  cluster_name = module.ecs.cluster_name
  alarm_names  = module.cloudwatch.alarm_names
  task_role_arns = [
    for service, arn in module.ecs.task_role_arns : arn if contains(["submission", "submissions", "api", "dashboard", "execution"], service)
  ]
  services = merge(
    {
      for service, arn in module.nlb.listener_arns : service => {
        balancer           = "nlb"
        service_name       = module.ecs.service_names[service]
        listener_arn       = arn
        target_group_names = module.nlb.target_group_names[service]
      } if local.settings[service].enabled
    },
    [
      for alb in module.alb : {
        for service, arn in alb.listener_arns : service => {
          balancer           = "alb"
          service_name       = module.ecs.service_names[service]
          listener_arn       = arn
          target_group_names = alb.target_group_names[service]
        } if local.settings[service].enabled
      }
    ]...
  )
}
