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

output "secret_arn" {
  description = "The secret with the master user's name and password, made and rotated by RDS."
  value       = aws_db_instance.primary.master_user_secret[0].secret_arn
}

output "kms_key_arn" {
  description = "The key of the storage and of the secret: who reads the secret needs kms:Decrypt."
  value       = aws_kms_key.main.arn
}
