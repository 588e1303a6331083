# ---- the load balancer

resource "aws_lb" "main" {
  name                             = "${var.name}-nlb"
  load_balancer_type               = "network"
  internal                         = false
  subnets                          = var.subnet_ids
  security_groups                  = var.security_group_ids
  enable_cross_zone_load_balancing = var.settings.cross_zone
  enable_deletion_protection       = var.settings.deletion_protection

  tags = { Name = "${var.name}-nlb" }
}

# ---- where connections go

locals {
  # How a service is called in the name of its target groups, which has room for 32 characters.
  services = { submission = "sub", submissions = "subs" }
  # Two of each, between which CodeDeploy moves the listener.
  groups = merge([
    for service, short in local.services : {
      for colour in ["blue", "green"] : "${service}-${colour}" => { port = var.ports[service], name = "${short}-${colour}" }
    }
  ]...)
}

resource "aws_lb_target_group" "smtp" {
  for_each = local.groups

  name        = "${var.name}-${each.value.name}"
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "TCP"
  port        = each.value.port

  # The client's address comes in the PROXY header; the peer is the load balancer, from which alone a header is believed.
  proxy_protocol_v2    = var.settings.proxy_protocol
  preserve_client_ip   = var.settings.preserve_client_ip
  deregistration_delay = var.settings.deregistration_delay_seconds

  # Sessions of a task that leaves, or is not ready, are ended by its 421 and not by a cut.
  connection_termination = false

  target_health_state {
    enable_unhealthy_connection_termination = false
  }

  health_check {
    protocol            = "HTTP"
    port                = tostring(var.ports.health)
    path                = var.settings.health_path
    matcher             = "200"
    interval            = var.settings.health_interval_seconds
    timeout             = var.settings.health_timeout_seconds
    healthy_threshold   = var.settings.healthy_threshold
    unhealthy_threshold = var.settings.unhealthy_threshold
  }

  tags = { Name = "${var.name}-${each.key}" }
}

# The issuer answers HTTP-01 in plain HTTP, without a PROXY header, and rolls: one group.
resource "aws_lb_target_group" "acme" {
  name                 = "${var.name}-acme"
  vpc_id               = var.vpc_id
  target_type          = "ip"
  protocol             = "TCP"
  port                 = var.ports.acme
  proxy_protocol_v2    = false
  preserve_client_ip   = var.settings.preserve_client_ip
  deregistration_delay = var.settings.acme_deregistration_delay_seconds

  health_check {
    protocol            = "HTTP"
    port                = tostring(var.ports.health)
    path                = var.settings.acme_health_path
    matcher             = "200"
    interval            = var.settings.health_interval_seconds
    timeout             = var.settings.health_timeout_seconds
    healthy_threshold   = var.settings.healthy_threshold
    unhealthy_threshold = var.settings.unhealthy_threshold
  }

  tags = { Name = "${var.name}-acme" }
}

# ---- listeners: TCP, since TLS ends in the task

resource "aws_lb_listener" "smtp" {
  for_each = local.services

  load_balancer_arn        = aws_lb.main.arn
  protocol                 = "TCP"
  port                     = var.ports["${each.key}_public"]
  tcp_idle_timeout_seconds = var.settings.idle_timeout_seconds

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.smtp["${each.key}-blue"].arn
  }

  tags = { Name = "${var.name}-${each.key}" }

  # Which of the two is in service is CodeDeploy's to say.
  lifecycle {
    ignore_changes = [default_action]
  }
}

# Nobody reaches these: no security group opens their ports, and CodeDeploy is not told of them. A group that no listener
# leads to is asked for no health: its tasks would be moved to unasked, and then be minutes without an answer.
resource "aws_lb_listener" "always" {
  for_each = local.groups

  load_balancer_arn        = aws_lb.main.arn
  protocol                 = "TCP"
  port                     = var.ports[replace(each.key, "-", "_")]
  tcp_idle_timeout_seconds = var.settings.idle_timeout_seconds

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.smtp[each.key].arn
  }

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_lb_listener" "acme" {
  load_balancer_arn = aws_lb.main.arn
  protocol          = "TCP"
  port              = var.ports.http

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.acme.arn
  }

  tags = { Name = "${var.name}-acme" }
}

# ---- the name that applications are given

resource "aws_route53_record" "smtp" {
  count = var.zone_id != "" && var.hostname != "" ? 1 : 0

  zone_id = var.zone_id
  name    = var.hostname
  type    = "A"

  alias {
    name                   = aws_lb.main.dns_name
    zone_id                = aws_lb.main.zone_id
    evaluate_target_health = false
  }
}
