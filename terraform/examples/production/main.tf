# All that an account has of its own, and a state that is shared, locked, encrypted and kept in versions.

terraform {
  required_version = ">= 1.10, < 2.0"

  # What is yours is said to `terraform init` (state.tfbackend.example), since no variable is known there.
  backend "s3" {
    key          = "smtp-proxy/production.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

module "smtp_proxy" {
  source = "../.."

  environment           = "production"
  account_id            = var.account_id
  zone_id               = var.zone_id
  smtp_hostname         = var.smtp_hostname
  http_hostname         = var.http_hostname
  image_version         = var.image_version
  smarthost_host        = var.smarthost_host
  smarthost_secret_arn  = var.smarthost_secret_arn
  smarthost_kms_key_arn = var.smarthost_kms_key_arn
  ses_arns              = var.ses_arns
  alert_emails          = var.alert_emails
}
