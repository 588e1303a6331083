# The least that can be said: which account, and the host name without which nobody gets a certificate.

terraform {
  required_version = ">= 1.9, < 2.0"
}

variable "account_id" {
  description = "The AWS account, 12 digits. Credentials of any other are refused before anything is changed."
  type        = string
}

variable "smtp_hostname" {
  description = "Host name that applications submit mail to: SMTP begins when there is a certificate for it."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.smtp_hostname))
    error_message = "smtp_hostname must be a host name in lower case, such as smtp.example.com: no task takes mail before there is a certificate for it."
  }
}

variable "zone_id" {
  description = "Its Route 53 zone: the record, and the certificate by DNS-01; empty: the record is made elsewhere, and leads to smtp_endpoint."
  type        = string
  default     = ""
}

variable "image_version" {
  description = "The image that services begin with: the tag that docs/DEPLOY.md pushes, or another one's, or a digest."
  type        = string
}

module "smtp_proxy" {
  source = "../.."

  environment   = "dev"
  account_id    = var.account_id
  smtp_hostname = var.smtp_hostname
  zone_id       = var.zone_id
  image_version = var.image_version
}

output "image_repository" {
  description = "Where the image is pushed to, before the first task can start."
  value       = module.smtp_proxy.image_repository
}

output "sealing_secret_arn" {
  description = "Wants its value: smtp-proxy secrets new-key makes it. Tasks that start before it is there wait."
  value       = module.smtp_proxy.sealing_secret_arn
}

output "smtp_endpoint" {
  description = "Where applications submit mail: 587 with STARTTLS, 465 with implicit TLS."
  value       = module.smtp_proxy.smtp_endpoint
}
