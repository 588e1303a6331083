# What is one account's own. Everything that is a number is in stack.yaml.

variable "environment" {
  description = "Which section of stack.yaml's environments is laid over its defaults: dev, staging or production."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "production"], var.environment)
    error_message = "environment must be dev, staging or production, as in stack.yaml."
  }

  validation {
    condition     = length(lookup(local.unknown, var.environment, [])) == 0
    error_message = "stack.yaml: environments.${var.environment} has what defaults has not got: ${join(", ", lookup(local.unknown, var.environment, []))}. Correct the spelling, or give it a default."
  }

  validation {
    condition = anytrue([
      for section in ["alb"] : merge(local.stack.defaults[section], try(local.stack.environments[var.environment][section], {})).enabled
      ]) || !anytrue([
      for section in ["api", "dashboard"] : merge(local.stack.defaults[section], try(local.stack.environments[var.environment][section], {})).enabled
    ])
    error_message = "stack.yaml: api.enabled and dashboard.enabled need alb.enabled: without the load balancer nobody reaches them."
  }
}

variable "account_id" {
  description = "The AWS account, 12 digits. Credentials of any other are refused before anything is changed."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must be the 12 digits of an AWS account (aws sts get-caller-identity)."
  }
}

variable "zone_id" {
  description = "The Route 53 zone of the host names; empty: their records are made elsewhere."
  type        = string
  default     = ""

  validation {
    condition     = var.zone_id == "" || can(regex("^[A-Z0-9]{6,32}$", var.zone_id))
    error_message = "zone_id must be empty or the id of a Route 53 zone, such as Z0123456789ABC (aws route53 list-hosted-zones)."
  }
}

variable "smtp_hostname" {
  description = "Host name that applications submit mail to, as in SMTP_PROXY_HOSTNAME; empty: no record is made."
  type        = string
  default     = ""
}

variable "http_hostname" {
  description = "Host name of the API and the dashboard; needed, with zone_id, where alb.enabled is true."
  type        = string
  default     = ""
}

variable "image_version" {
  description = "Tag or digest (sha256:...) of the image that services begin with, which somebody pushes before them; afterwards deployments say it."
  type        = string
}

variable "smarthost_host" {
  description = "Host that mail is delivered through, by STARTTLS; empty: mail is delivered nowhere until there is one."
  type        = string
  default     = ""
}

variable "smarthost_secret_arn" {
  description = "Secret with the smarthost's username and password; empty: it asks for none."
  type        = string
  default     = ""
}

variable "smarthost_kms_key_arn" {
  description = "Key of smarthost_secret_arn, where it is one of your own; empty: AWS's own key of Secrets Manager."
  type        = string
  default     = ""

  validation {
    condition     = var.smarthost_kms_key_arn == "" || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.smarthost_kms_key_arn))
    error_message = "smarthost_kms_key_arn must be the ARN of a key, not of an alias: arn:aws:kms:REGION:ACCOUNT:key/ID (aws kms describe-key)."
  }

  validation {
    condition     = var.smarthost_kms_key_arn == "" || var.smarthost_secret_arn != ""
    error_message = "smarthost_kms_key_arn is the key of smarthost_secret_arn: name both, or neither."
  }
}

variable "ses_arns" {
  description = "What the worker's routes of kind \"ses\" send with: ARNs of identities, and of the configuration sets and tenants that routes name; empty: the worker may not call SES."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.ses_arns : can(regex("^arn:aws[a-z-]*:ses:[a-z0-9-]+:[0-9]{12}:(identity|configuration-set|tenant)/[^*?[:space:]]+$", arn))])
    error_message = "ses_arns must be whole ARNs of SES, without wildcards: arn:aws:ses:REGION:ACCOUNT:identity/example.com (aws sesv2 list-email-identities), configuration-set/NAME or tenant/NAME/ID."
  }
}

variable "alert_emails" {
  description = "Who is told by e-mail of alarms and of costs, each of whom must confirm it once; empty: nobody."
  type        = list(string)
  default     = []
}
