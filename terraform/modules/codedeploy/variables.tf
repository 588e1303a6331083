variable "name" {
  description = "Prefix of every name: project and environment."
  type        = string
}

variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "account_id" {
  description = "Account of the cluster."
  type        = string
}

variable "cluster_name" {
  description = "The ECS cluster."
  type        = string
}

variable "services" {
  description = "By service: its load balancer (nlb, alb), its name in ECS, its listener and its two target groups."
  type = map(object({
    balancer           = string
    service_name       = string
    listener_arn       = string
    target_group_names = list(string)
  }))

  validation {
    condition     = alltrue([for of in values(var.services) : contains(["nlb", "alb"], of.balancer) && length(of.target_group_names) == 2])
    error_message = "services: balancer must be nlb or alb, and there must be two target groups, blue and green."
  }
}

variable "task_role_arns" {
  description = "Roles of the tasks, and the role that starts them: what CodeDeploy may pass on."
  type        = list(string)
  default     = []
}

variable "alarm_names" {
  description = "By service, the alarms that stop a deployment and take it back."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for names in values(var.alarm_names) : length(names) <= 10])
    error_message = "alarm_names: CodeDeploy watches 10 alarms of a deployment group at most."
  }
}

variable "settings" {
  description = "Section codedeploy of stack.yaml."
  type = object({
    nlb_config               = string
    alb_config               = string
    ready_wait_minutes       = number
    termination_wait_minutes = number
    rollback_events          = list(string)
  })

  validation {
    condition     = var.settings.nlb_config == "CodeDeployDefault.ECSAllAtOnce"
    error_message = "codedeploy.nlb_config must be CodeDeployDefault.ECSAllAtOnce: CodeDeploy knows nothing else behind a network load balancer."
  }

  validation {
    condition     = can(regex("^CodeDeployDefault\\.ECS(AllAtOnce|(Canary|Linear)10Percent(Every)?[0-9]+Minutes?)$", var.settings.alb_config))
    error_message = "codedeploy.alb_config must be one of CodeDeployDefault.ECS…, such as CodeDeployDefault.ECSCanary10Percent5Minutes."
  }

  validation {
    condition     = var.settings.ready_wait_minutes >= 0 && var.settings.ready_wait_minutes <= 2880 && var.settings.termination_wait_minutes >= 1 && var.settings.termination_wait_minutes <= 2880
    error_message = "codedeploy.ready_wait_minutes must be 0 to 2880, and codedeploy.termination_wait_minutes 1 to 2880: without the old tasks there is no way back."
  }

  validation {
    condition     = contains(var.settings.rollback_events, "DEPLOYMENT_FAILURE") && contains(var.settings.rollback_events, "DEPLOYMENT_STOP_ON_ALARM")
    error_message = "codedeploy.rollback_events must have DEPLOYMENT_FAILURE and DEPLOYMENT_STOP_ON_ALARM (REQ-INFRA-ECS-006)."
  }
}
