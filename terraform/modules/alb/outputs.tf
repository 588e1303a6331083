output "dns_name" {
  description = "The load balancer's own name."
  value       = aws_lb.main.dns_name
}

output "arn_suffix" {
  description = "The load balancer in the dimensions of its metrics."
  value       = aws_lb.main.arn_suffix
}

output "target_group_arns" {
  description = "The group that a service begins with: api, dashboard."
  value       = { for service in keys(local.services) : service => aws_lb_target_group.web["${service}-blue"].arn }

  # ECS refuses a group that no listener leads to yet.
  depends_on = [aws_lb_listener.https, aws_lb_listener_rule.api]
}

output "target_group_names" {
  description = "Both groups of each service that CodeDeploy deploys: blue, green."
  value = {
    for service in keys(local.services) : service => [
      for colour in ["blue", "green"] : aws_lb_target_group.web["${service}-${colour}"].name
    ]
  }
}

output "target_group_arn_suffixes" {
  description = "Both groups of each service in the dimensions of their metrics; which of the two is in service changes."
  value = {
    for service in keys(local.services) : service => [
      for colour in ["blue", "green"] : aws_lb_target_group.web["${service}-${colour}"].arn_suffix
    ]
  }
}

output "listener_arns" {
  description = "The listener of each service that CodeDeploy deploys: one for both."
  value       = { for service in keys(local.services) : service => aws_lb_listener.https.arn }
}
