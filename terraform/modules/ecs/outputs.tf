output "cluster_name" {
  description = "The cluster: the dimension of alarms, and what deployers name."
  value       = aws_ecs_cluster.main.name

  # CodeDeploy refuses a service that is not there yet.
  depends_on = [aws_ecs_service.blue_green]
}

output "service_names" {
  description = "Services by their section in stack.yaml; who is switched off is missing."
  value       = merge({ for key, each in aws_ecs_service.blue_green : key => each.name }, { for key, each in aws_ecs_service.rolling : key => each.name })
}

output "repository_url" {
  description = "Where images are pushed to."
  value       = aws_ecr_repository.main.repository_url
}

output "sealing_secret_arn" {
  description = "The secret that wants its value put in; tasks that start before wait for it."
  value       = aws_secretsmanager_secret.sealing.arn
}

output "task_role_arns" {
  description = "Roles of the tasks by service, of migrations, and of what starts them: who deploys must be allowed to pass these."
  value       = merge({ for service, role in aws_iam_role.task : service => role.arn }, { execution = aws_iam_role.execution.arn, migrate = aws_iam_role.migrate.arn })
}

output "log_group_names" {
  description = "Logs by service."
  value       = { for service, group in aws_cloudwatch_log_group.service : service => group.name }
}
