output "topic_arn" {
  description = "Where alerts are published: CERT_ALERT_SNS_TOPIC of the issuer."
  value       = aws_sns_topic.alerts.arn

  # Nobody publishes before the policy says who may.
  depends_on = [aws_sns_topic_policy.alerts]
}

output "kms_key_arn" {
  description = "The key of the topic: who publishes must be allowed to use it."
  value       = aws_kms_key.main.arn
}

output "alarm_names" {
  description = "By service the alarms that take its deployment back."
  value = {
    for service in var.services : service => concat(
      [for key, of in local.plain : aws_cloudwatch_metric_alarm.metric[key].alarm_name if of.rollback && of.target == service],
      [for key, of in local.formulas : aws_cloudwatch_metric_alarm.formula[key].alarm_name if of.rollback && of.target == service],
    )
  }
}

output "dashboard_name" {
  description = "The dashboard of CloudWatch."
  value       = aws_cloudwatch_dashboard.main.dashboard_name
}
