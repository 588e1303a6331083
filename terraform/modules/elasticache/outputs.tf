output "endpoint" {
  description = "Configuration endpoint: where a client of the cluster begins, with rediss://."
  value       = aws_elasticache_replication_group.main.configuration_endpoint_address
}

output "replication_group_id" {
  description = "The replication group: the dimension of its alarms."
  value       = aws_elasticache_replication_group.main.replication_group_id
}

output "replication_group_arn" {
  description = "For elasticache:Connect in the policies of task roles."
  value       = aws_elasticache_replication_group.main.arn
}

output "user_id" {
  description = "Whom tasks log in as, with an IAM token."
  value       = aws_elasticache_user.tasks.user_id
}

output "user_arn" {
  description = "For elasticache:Connect in the policies of task roles."
  value       = aws_elasticache_user.tasks.arn
}
