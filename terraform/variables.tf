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
}

variable "account_id" {
  description = "The AWS account, 12 digits. Credentials of any other are refused before anything is changed."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must be the 12 digits of an AWS account (aws sts get-caller-identity)."
  }
}
