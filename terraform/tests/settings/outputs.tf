# The defaults of stack.yaml, for the tests of single modules.

locals {
  defaults = yamldecode(file("${path.module}/../../stack.yaml")).defaults
}

output "general" {
  description = "Section general."
  value       = local.defaults.general
}

output "vpc" {
  description = "Section vpc."
  value       = local.defaults.vpc
}

output "ports" {
  description = "Section ports."
  value       = local.defaults.ports
}

output "security" {
  description = "Section security."
  value       = local.defaults.security
}

output "rds" {
  description = "Section rds."
  value       = local.defaults.rds
}

output "elasticache" {
  description = "Section elasticache."
  value       = local.defaults.elasticache
}

output "nlb" {
  description = "Section nlb."
  value       = local.defaults.nlb
}

output "alb" {
  description = "Section alb."
  value       = local.defaults.alb
}

output "codedeploy" {
  description = "Section codedeploy."
  value       = local.defaults.codedeploy
}

output "submission" {
  description = "Section submission."
  value       = local.defaults.submission
}

output "submissions" {
  description = "Section submissions."
  value       = local.defaults.submissions
}

output "worker" {
  description = "Section worker."
  value       = local.defaults.worker
}

output "certs" {
  description = "Section certs."
  value       = local.defaults.certs
}

output "api" {
  description = "Section api."
  value       = local.defaults.api
}

output "dashboard" {
  description = "Section dashboard."
  value       = local.defaults.dashboard
}

output "scaling" {
  description = "Section scaling."
  value       = local.defaults.scaling
}

output "pressure" {
  description = "Section pressure."
  value       = local.defaults.pressure
}

output "ecs" {
  description = "Section ecs."
  value       = local.defaults.ecs
}

output "alarms" {
  description = "Section alarms."
  value       = local.defaults.alarms
}

output "charts" {
  description = "Section charts."
  value       = local.defaults.charts
}

output "budget" {
  description = "Section budget."
  value       = local.defaults.budget
}
