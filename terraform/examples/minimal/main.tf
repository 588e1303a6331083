# The least that can be said: which account.

terraform {
  required_version = ">= 1.9, < 2.0"
}

variable "account_id" {
  description = "The AWS account, 12 digits. Credentials of any other are refused before anything is changed."
  type        = string
}

module "smtp_proxy" {
  source = "../.."

  environment = "dev"
  account_id  = var.account_id
}

output "image_repository" {
  description = "Where the image is pushed to, before the first task can start."
  value       = module.smtp_proxy.image_repository
}

output "sealing_secret_arn" {
  description = "Wants its value before the first task starts: smtp-proxy secrets new-key makes it."
  value       = module.smtp_proxy.sealing_secret_arn
}

output "smtp_endpoint" {
  description = "Where applications submit mail: 587 with STARTTLS, 465 with implicit TLS."
  value       = module.smtp_proxy.smtp_endpoint
}
