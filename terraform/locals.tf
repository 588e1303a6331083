# stack.yaml: each section's defaults, with the keys of the environment's section over them.

locals {
  stack    = yamldecode(file("${path.module}/stack.yaml"))
  override = local.stack.environments[var.environment]
  settings = { for section, defaults in local.stack.defaults : section => merge(defaults, try(local.override[section], {})) }

  # Of each environment, what would otherwise be passed over: a misspelt section or key changes nothing, in silence.
  # var.environment refuses an environment that has any, as smtp_proxy_infra/settings.py does.
  unknown = {
    for environment, override in local.stack.environments : environment => flatten([
      for section, values in merge(override, {}) :
      !contains(keys(local.stack.defaults), section) ? [section] : [
        for key in try(keys(values), []) : "${section}.${key}" if !contains(keys(local.stack.defaults[section]), key)
      ]
    ])
  }

  general = local.settings.general
  name    = "${local.general.name}-${var.environment}"
  tags    = { Project = local.general.name, Environment = var.environment }
}
