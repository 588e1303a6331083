output "dns_name" {
  description = "The load balancer's own name: what a record made elsewhere points to."
  value       = aws_lb.main.dns_name
}

output "arn_suffix" {
  description = "The load balancer in the dimensions of its metrics."
  value       = aws_lb.main.arn_suffix
}

output "target_group_arns" {
  description = "The group that a service begins with: submission, submissions, acme."
  value = merge(
    { for service in keys(local.services) : service => aws_lb_target_group.smtp["${service}-blue"].arn },
    { acme = aws_lb_target_group.acme.arn },
  )

  # ECS refuses a group that no listener leads to yet.
  depends_on = [aws_lb_listener.smtp, aws_lb_listener.always, aws_lb_listener.acme]
}

output "target_group_names" {
  description = "Both groups of each service that CodeDeploy deploys: blue, green."
  value = {
    for service in keys(local.services) : service => [
      for colour in ["blue", "green"] : aws_lb_target_group.smtp["${service}-${colour}"].name
    ]
  }
}

output "target_group_arn_suffixes" {
  description = "All groups of each service in the dimensions of their metrics; which of two is in service changes."
  value = merge(
    {
      for service in keys(local.services) : service => [
        for colour in ["blue", "green"] : aws_lb_target_group.smtp["${service}-${colour}"].arn_suffix
      ]
    },
    { acme = [aws_lb_target_group.acme.arn_suffix] },
  )
}

output "listener_arns" {
  description = "The listener of each service that CodeDeploy deploys."
  value       = { for service, listener in aws_lb_listener.smtp : service => listener.arn }
}
