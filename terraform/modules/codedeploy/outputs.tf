output "application_name" {
  description = "The CodeDeploy application."
  value       = aws_codedeploy_app.main.name
}

output "deployment_group_names" {
  description = "The deployment group of each service."
  value       = { for service, group in aws_codedeploy_deployment_group.service : service => group.deployment_group_name }
}
