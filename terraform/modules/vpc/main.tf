# ---- network

resource "aws_vpc" "main" {
  cidr_block           = var.settings.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# What nobody has chosen a group for gets this one: it lets nothing through.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-closed" }
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  for_each = var.settings.public_cidrs

  vpc_id            = aws_vpc.main.id
  cidr_block        = each.value
  availability_zone = var.zones[each.key]

  tags = { Name = "${var.name}-public-${each.key}" }
}

resource "aws_subnet" "private" {
  for_each = var.settings.private_cidrs

  vpc_id            = aws_vpc.main.id
  cidr_block        = each.value
  availability_zone = var.zones[each.key]

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_subnet" "database" {
  for_each = var.settings.database_cidrs

  vpc_id            = aws_vpc.main.id
  cidr_block        = each.value
  availability_zone = var.zones[each.key]

  tags = { Name = "${var.name}-database-${each.key}" }
}

# ---- ways out

resource "aws_eip" "nat" {
  for_each = toset(var.settings.nat_zones)

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${each.key}" }

  # AWS maps no public address in a VPC that has no gateway yet, and takes no gateway from one that has any.
  depends_on = [aws_internet_gateway.main]
}

resource "aws_nat_gateway" "main" {
  for_each = toset(var.settings.nat_zones)

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id

  tags = { Name = "${var.name}-${each.key}" }

  depends_on = [aws_internet_gateway.main]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

# A table for each zone, so that a zone's tasks leave through the zone's own gateway where it has one.
resource "aws_route_table" "private" {
  for_each = aws_subnet.private

  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route" "private" {
  for_each = aws_route_table.private

  route_table_id         = each.value.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.main[contains(var.settings.nat_zones, each.key) ? each.key : var.settings.nat_zones[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

# Databases reach nothing outside the VPC: a table without a route.
resource "aws_route_table" "database" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-database" }
}

resource "aws_route_table_association" "database" {
  for_each = aws_subnet.database

  subnet_id      = each.value.id
  route_table_id = aws_route_table.database.id
}

# ---- endpoints

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for zone in sort(keys(aws_route_table.private)) : aws_route_table.private[zone].id]

  tags = { Name = "${var.name}-s3" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = toset(var.settings.endpoints)

  vpc_id              = aws_vpc.main.id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = [for zone in sort(keys(aws_subnet.private)) : aws_subnet.private[zone].id]
  security_group_ids  = [aws_security_group.role["endpoints"].id]

  tags = { Name = "${var.name}-${each.key}" }
}

# ---- security groups

resource "aws_security_group" "role" {
  for_each = var.security.groups

  name        = "${var.name}-${each.key}"
  description = each.value
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_ingress_rule" "rule" {
  for_each = { for name, rule in var.security.rules : name => rule if rule.direction == "ingress" }

  security_group_id            = aws_security_group.role[each.value.group].id
  description                  = each.value.why
  ip_protocol                  = "tcp"
  from_port                    = var.ports[each.value.port]
  to_port                      = var.ports[each.value.port]
  cidr_ipv4                    = each.value.peer == "world" ? "0.0.0.0/0" : null
  prefix_list_id               = each.value.peer == "s3" ? aws_vpc_endpoint.s3.prefix_list_id : null
  referenced_security_group_id = contains(["world", "s3"], each.value.peer) ? null : aws_security_group.role[each.value.peer].id
}

resource "aws_vpc_security_group_egress_rule" "rule" {
  for_each = { for name, rule in var.security.rules : name => rule if rule.direction == "egress" }

  security_group_id            = aws_security_group.role[each.value.group].id
  description                  = each.value.why
  ip_protocol                  = "tcp"
  from_port                    = var.ports[each.value.port]
  to_port                      = var.ports[each.value.port]
  cidr_ipv4                    = each.value.peer == "world" ? "0.0.0.0/0" : null
  prefix_list_id               = each.value.peer == "s3" ? aws_vpc_endpoint.s3.prefix_list_id : null
  referenced_security_group_id = contains(["world", "s3"], each.value.peer) ? null : aws_security_group.role[each.value.peer].id
}

# ---- flow logs

resource "aws_cloudwatch_log_group" "flow" {
  name              = "/${var.name}/vpc-flow"
  retention_in_days = var.settings.flow_log_retention_days
}

resource "aws_iam_role" "flow" {
  name = "${var.name}-vpc-flow"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "flow" {
  name = "write"
  role = aws_iam_role.flow.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.flow.arn}:*"]
    }]
  })
}

resource "aws_flow_log" "main" {
  vpc_id                   = aws_vpc.main.id
  traffic_type             = "ALL"
  log_destination_type     = "cloud-watch-logs"
  log_destination          = aws_cloudwatch_log_group.flow.arn
  iam_role_arn             = aws_iam_role.flow.arn
  max_aggregation_interval = 60

  tags = { Name = var.name }
}
