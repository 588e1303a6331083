output "endpoint" {
  description = "Host that tasks talk to: RDS Proxy where it is switched on, else the primary."
  value       = var.settings.proxy ? aws_db_proxy.main[0].endpoint : aws_db_instance.primary.address
}

output "direct_endpoint" {
  description = "Host of the primary itself: locks, notifications and migrations go past the proxy (DB_DIRECT_HOST)."
  value       = aws_db_instance.primary.address
}

output "identifier" {
  description = "Identifier of the primary: the dimension of its alarms."
  value       = aws_db_instance.primary.identifier
}

output "resource_id" {
  description = "What rds-db:connect calls the primary."
  value       = aws_db_instance.primary.resource_id
}

output "proxy_resource_id" {
  description = "What rds-db:connect calls RDS Proxy: the end of its ARN; empty where there is none."
  value       = var.settings.proxy ? reverse(split(":", aws_db_proxy.main[0].arn))[0] : ""
}

output "proxy_secret_arn" {
  description = "The secret that RDS Proxy logs in with, whose value `smtp-proxy migrate` makes up; empty where there is none."
  value       = var.settings.proxy ? aws_secretsmanager_secret.proxy[0].arn : ""
}

output "secret_arn" {
  description = "The secret with the master user's name and password, made and rotated by RDS: for migrations alone."
  value       = aws_db_instance.primary.master_user_secret[0].secret_arn
}

output "kms_key_arn" {
  description = "The key of the storage and of the secrets: who reads one needs kms:Decrypt."
  value       = aws_kms_key.main.arn
}
