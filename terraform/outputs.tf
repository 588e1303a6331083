output "vpc_id" {
  description = "The VPC."
  value       = module.vpc.vpc_id
}

output "nat_addresses" {
  description = "Where mail leaves from, by zone: for SPF, reverse DNS and allow-lists of smarthosts."
  value       = module.vpc.nat_addresses
}

output "database_endpoint" {
  description = "Host of the primary, or of RDS Proxy where it is switched on."
  value       = module.rds.endpoint
}

output "database_secret_arn" {
  description = "The secret with the master user's password, which RDS makes and rotates. Its value is in no state."
  value       = module.rds.secret_arn
}

output "cache_endpoint" {
  description = "Configuration endpoint of the cache; clients use rediss:// and an IAM token."
  value       = module.elasticache.endpoint
}

output "smtp_endpoint" {
  description = "The network load balancer's own name: what a record of smtp_hostname made elsewhere points to."
  value       = module.nlb.dns_name
}

output "http_endpoint" {
  description = "The application load balancer's own name; null where there is none."
  value       = one(module.alb[*].dns_name)
}

output "deployment_groups" {
  description = "What CodeDeploy deploys: the deployment group of each service with a port."
  value       = module.codedeploy.deployment_group_names
}

output "image_repository" {
  description = "Where the image is pushed to."
  value       = module.ecs.repository_url
}

output "sealing_secret_arn" {
  description = "Wants its value: smtp-proxy secrets new-key makes it. Tasks that start before it is there wait."
  value       = module.ecs.sealing_secret_arn
}

output "alerts_topic_arn" {
  description = "Where alarms are published: what else should hear of them subscribes to it."
  value       = module.cloudwatch.topic_arn
}
