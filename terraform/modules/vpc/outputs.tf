output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.main.id
}

output "public_subnet_ids" {
  description = "Networks of the load balancers, by zone."
  value       = { for zone, subnet in aws_subnet.public : zone => subnet.id }

  # A network is public once it has a way out: a load balancer in one without is refused.
  depends_on = [aws_route.public, aws_route_table_association.public]
}

output "private_subnet_ids" {
  description = "Networks of the tasks, by zone."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }

  # A task that starts before it can reach its image, its secrets or the database fails.
  depends_on = [
    aws_route.private, aws_route_table_association.private, aws_vpc_endpoint.s3, aws_vpc_endpoint.interface,
    aws_vpc_security_group_ingress_rule.rule, aws_vpc_security_group_egress_rule.rule,
  ]
}

output "database_subnet_ids" {
  description = "Networks of Postgres and the cache, by zone."
  value       = { for zone, subnet in aws_subnet.database : zone => subnet.id }
}

output "security_group_ids" {
  description = "Security groups by role (security.groups of stack.yaml)."
  value       = { for role, group in aws_security_group.role : role => group.id }
}

output "nat_addresses" {
  description = "Public IPv4 addresses that tasks leave from, by zone."
  value       = { for zone, address in aws_eip.nat : zone => address.public_ip }
}
