# ---- the certificate, which Route 53 proves to be for this name

resource "aws_acm_certificate" "main" {
  domain_name       = var.hostname
  validation_method = "DNS"

  tags = { Name = "${var.name}-alb" }

  # The listener has the old one until the new one is there.
  lifecycle {
    create_before_destroy = true
  }
}

# One name, so one record; ACM asks for it again at each renewal.
resource "aws_route53_record" "proof" {
  zone_id         = var.zone_id
  name            = tolist(aws_acm_certificate.main.domain_validation_options)[0].resource_record_name
  type            = "CNAME"
  ttl             = 300
  records         = [tolist(aws_acm_certificate.main.domain_validation_options)[0].resource_record_value]
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "main" {
  certificate_arn         = aws_acm_certificate.main.arn
  validation_record_fqdns = [aws_route53_record.proof.fqdn]
}

# ---- access logs

resource "aws_s3_bucket" "logs" {
  bucket        = "${var.name}-alb-logs-${var.account_id}"
  force_destroy = !var.settings.deletion_protection

  tags = { Name = "${var.name}-alb-logs" }
}

resource "aws_s3_bucket_public_access_block" "logs" {
  bucket                  = aws_s3_bucket.logs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# With S3's own key: load balancers write to no bucket with another.
resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    id     = "expire"
    status = "Enabled"

    filter {
      prefix = ""
    }

    expiration {
      days = var.settings.access_log_retention_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_policy" "logs" {
  bucket = aws_s3_bucket.logs.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.logs.arn}/AWSLogs/${var.account_id}/*"
        Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
      },
      {
        Effect    = "Deny"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.logs.arn, "${aws_s3_bucket.logs.arn}/*"]
        Principal = "*"
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

# ---- the load balancer

resource "aws_lb" "main" {
  name                       = "${var.name}-alb"
  load_balancer_type         = "application"
  internal                   = false
  subnets                    = var.subnet_ids
  security_groups            = var.security_group_ids
  idle_timeout               = var.settings.idle_timeout_seconds
  enable_http2               = var.settings.http2
  drop_invalid_header_fields = true
  enable_deletion_protection = var.settings.deletion_protection

  access_logs {
    enabled = true
    bucket  = aws_s3_bucket.logs.id
  }

  tags = { Name = "${var.name}-alb" }

  # It tries to write when logs are switched on.
  depends_on = [aws_s3_bucket_policy.logs]
}

# ---- where requests go

locals {
  # How a service is called in the name of its target groups, which has room for 32 characters.
  services = {
    api       = { short = "api", health_path = var.settings.api_health_path }
    dashboard = { short = "dash", health_path = var.settings.dashboard_health_path }
  }
  # Two of each, between which CodeDeploy shifts requests.
  groups = merge([
    for service, of in local.services : {
      for colour in ["blue", "green"] : "${service}-${colour}" => {
        port = var.ports[service], name = "${of.short}-${colour}", health_path = of.health_path
      }
    }
  ]...)
}

resource "aws_lb_target_group" "web" {
  for_each = local.groups

  name                 = "${var.name}-${each.value.name}"
  vpc_id               = var.vpc_id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = each.value.port
  deregistration_delay = var.settings.deregistration_delay_seconds

  health_check {
    protocol            = "HTTP"
    port                = "traffic-port"
    path                = each.value.health_path
    matcher             = "200"
    interval            = var.settings.health_interval_seconds
    timeout             = var.settings.health_timeout_seconds
    healthy_threshold   = var.settings.healthy_threshold
    unhealthy_threshold = var.settings.unhealthy_threshold
  }

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.main.arn
  protocol          = "HTTPS"
  port              = var.ports.https
  ssl_policy        = var.settings.ssl_policy
  certificate_arn   = aws_acm_certificate.main.arn

  routing_http_response_strict_transport_security_header_value = "max-age=31536000"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.web["dashboard-blue"].arn
  }

  tags = { Name = "${var.name}-https" }

  # A certificate that is not issued yet is refused.
  depends_on = [aws_acm_certificate_validation.main]

  # Which of the two is in service is CodeDeploy's to say.
  lifecycle {
    ignore_changes = [default_action]
  }
}

resource "aws_lb_listener_rule" "api" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 10

  condition {
    path_pattern {
      values = var.settings.api_paths
    }
  }

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.web["api-blue"].arn
  }

  tags = { Name = "${var.name}-api" }

  lifecycle {
    ignore_changes = [action]
  }
}

resource "aws_lb_listener" "redirect" {
  load_balancer_arn = aws_lb.main.arn
  protocol          = "HTTP"
  port              = var.ports.http

  default_action {
    type = "redirect"

    redirect {
      protocol    = "HTTPS"
      port        = tostring(var.ports.https)
      status_code = "HTTP_301"
    }
  }

  tags = { Name = "${var.name}-redirect" }
}

resource "aws_route53_record" "web" {
  zone_id = var.zone_id
  name    = var.hostname
  type    = "A"

  alias {
    name                   = aws_lb.main.dns_name
    zone_id                = aws_lb.main.zone_id
    evaluate_target_health = false
  }
}

# ---- AWS WAF

locals {
  # Of a rule set, the rules that only count: a list for the API is larger than 8 KiB, and `<a@b.example>` looks like HTML.
  rule_sets = {
    AWSManagedRulesAmazonIpReputationList = { priority = 1, counts = [] }
    AWSManagedRulesCommonRuleSet          = { priority = 2, counts = ["SizeRestrictions_BODY", "CrossSiteScripting_BODY"] }
    AWSManagedRulesKnownBadInputsRuleSet  = { priority = 3, counts = [] }
  }
}

resource "aws_wafv2_web_acl" "main" {
  count = var.settings.waf ? 1 : 0

  name        = "${var.name}-alb"
  description = "Managed rules, and a rate for each address"
  scope       = "REGIONAL"

  default_action {
    allow {}
  }

  rule {
    name     = "rate"
    priority = 0

    action {
      block {}
    }

    statement {
      rate_based_statement {
        aggregate_key_type    = "IP"
        limit                 = var.settings.waf_requests_per_address
        evaluation_window_sec = 300
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-rate"
      sampled_requests_enabled   = false
    }
  }

  dynamic "rule" {
    for_each = local.rule_sets

    content {
      name     = rule.key
      priority = rule.value.priority

      override_action {
        none {}
      }

      statement {
        managed_rule_group_statement {
          name        = rule.key
          vendor_name = "AWS"

          dynamic "rule_action_override" {
            for_each = rule.value.counts

            content {
              name = rule_action_override.value

              action_to_use {
                count {}
              }
            }
          }
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-${rule.key}"
        sampled_requests_enabled   = false
      }
    }
  }

  # Sampled requests would show what mail holds.
  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = "${var.name}-alb"
    sampled_requests_enabled   = false
  }

  tags = { Name = "${var.name}-alb" }
}

resource "aws_wafv2_web_acl_association" "main" {
  count = var.settings.waf ? 1 : 0

  resource_arn = aws_lb.main.arn
  web_acl_arn  = aws_wafv2_web_acl.main[0].arn
}
