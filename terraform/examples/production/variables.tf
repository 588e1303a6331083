# The stack checks what they hold: terraform/variables.tf.

variable "account_id" {
  description = "The AWS account, 12 digits. Credentials of any other are refused before anything is changed."
  type        = string
}

variable "zone_id" {
  description = "The Route 53 zone of the host names: their records, and certificates by DNS-01."
  type        = string
}

variable "smtp_hostname" {
  description = "Host name that applications submit mail to."
  type        = string
}

variable "http_hostname" {
  description = "Host name of the API and the dashboard, where alb.enabled is true in stack.yaml; empty: none."
  type        = string
  default     = ""
}

variable "image_version" {
  description = "The image that services begin with, by digest, so that nobody can put another in its place."
  type        = string

  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image_version))
    error_message = "image_version must be a digest, sha256: and 64 hexadecimal digits (docker buildx imagetools inspect)."
  }
}

variable "smarthost_host" {
  description = "Host that mail is delivered through, by STARTTLS."
  type        = string
}

variable "smarthost_secret_arn" {
  description = "Secret with the smarthost's username and password; empty: it asks for none."
  type        = string
  default     = ""
}

variable "smarthost_kms_key_arn" {
  description = "Key of that secret, where it is one of your own; empty: AWS's own."
  type        = string
  default     = ""
}

variable "ses_arns" {
  description = "ARNs of SES that the worker may send with by its API; empty: none."
  type        = list(string)
  default     = []
}

variable "alert_emails" {
  description = "Who is told by e-mail of alarms and of costs; empty: nobody."
  type        = list(string)
  default     = []
}
