# stack.yaml: each section's defaults, with the keys of the environment's section over them.

locals {
  stack    = yamldecode(file("${path.module}/stack.yaml"))
  override = local.stack.environments[var.environment]
  settings = { for section, defaults in local.stack.defaults : section => merge(defaults, try(local.override[section], {})) }

  general = local.settings.general
  name    = "${local.general.name}-${var.environment}"
  tags    = { Project = local.general.name, Environment = var.environment }
}

# Both sides refuse what would otherwise be passed over: a misspelt section or key changes nothing, in silence.
check "settings" {
  assert {
    condition = alltrue([
      for section, values in local.override : can(local.stack.defaults[section]) && alltrue([
        for key in keys(values) : contains(keys(try(local.stack.defaults[section], {})), key)
      ])
    ])
    error_message = "stack.yaml: environments.${var.environment} has a section or key that defaults has not got."
  }
}
