output "smtp_endpoint" {
  description = "What smtp_hostname leads to."
  value       = module.smtp_proxy.smtp_endpoint
}

output "nat_addresses" {
  description = "Where mail leaves from: for SPF, reverse DNS and allow-lists of smarthosts."
  value       = module.smtp_proxy.nat_addresses
}

output "image_repository" {
  description = "Where the image is pushed to, before the first task can start."
  value       = module.smtp_proxy.image_repository
}

output "sealing_secret_arn" {
  description = "Wants its value: smtp-proxy secrets new-key makes it. Tasks that start before it is there wait."
  value       = module.smtp_proxy.sealing_secret_arn
}

output "deployment_groups" {
  description = "What CodeDeploy deploys: the deployment group of each service with a port."
  value       = module.smtp_proxy.deployment_groups
}
