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
