# The application load balancer by itself: what must hold whatever the numbers are, and which numbers are refused.

mock_provider "aws" {
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/mocked/0123456789abcdef" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/mocked/0123456789abcdef" }
  }
  mock_resource "aws_lb_listener" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/app/mocked/0123456789abcdef/0123456789abcdef" }
  }
  mock_resource "aws_acm_certificate" {
    defaults = {
      arn                       = "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
      domain_validation_options = [{ resource_record_name = "_a.mail.example.com", resource_record_value = "_b.acm-validations.aws" }]
    }
  }
  mock_resource "aws_wafv2_web_acl" {
    defaults = { arn = "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/mocked/00000000-0000-0000-0000-000000000000" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mocked" }
  }
}

variables {
  name               = "smtp-proxy-production"
  account_id         = "123456789012"
  vpc_id             = "vpc-a"
  subnet_ids         = ["subnet-a", "subnet-b"]
  security_group_ids = ["sg-a"]
  zone_id            = "Z0123456789ABC"
  hostname           = "mail.example.com"
}

run "settings" {
  command = plan

  module {
    source = "./tests/settings"
  }
}

run "alb" {
  module {
    source = "./modules/alb"
  }

  variables {
    ports    = run.settings.ports
    settings = run.settings.alb
  }

  assert {
    condition     = aws_lb_listener.https.protocol == "HTTPS" && aws_lb_listener.https.certificate_arn == aws_acm_certificate.main.arn
    error_message = "HTTPS has a certificate."
  }

  assert {
    condition     = aws_route53_record.proof.name == "_a.mail.example.com" && aws_route53_record.proof.records == toset(["_b.acm-validations.aws"])
    error_message = "The zone proves to ACM that the name is ours."
  }

  assert {
    condition     = aws_lb_listener.redirect.default_action[0].type == "redirect" && aws_lb_listener.redirect.default_action[0].redirect[0].protocol == "HTTPS"
    error_message = "Port 80 is redirected, and nothing else."
  }

  assert {
    condition     = aws_lb.main.drop_invalid_header_fields && aws_lb.main.access_logs[0].enabled
    error_message = "Headers that are none are dropped; who asked is logged."
  }

  assert {
    condition     = alltrue([for group in aws_lb_target_group.web : length(group.name) <= 32 && group.health_check[0].path != ""])
    error_message = "Names fit, and every group asks for health."
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.logs.restrict_public_buckets && aws_s3_bucket_lifecycle_configuration.logs.rule[0].expiration[0].days == 90
    error_message = "Access logs are not public, and do not stay for ever."
  }

  assert {
    condition     = length(aws_wafv2_web_acl.main) == 0
    error_message = "AWS WAF is a switch of its own."
  }
}

run "with_waf" {
  module {
    source = "./modules/alb"
  }

  variables {
    ports    = run.settings.ports
    settings = merge(run.settings.alb, { waf = true })
  }

  assert {
    condition     = aws_wafv2_web_acl_association.main[0].resource_arn == aws_lb.main.arn && length(aws_wafv2_web_acl.main[0].rule) == 4
    error_message = "The rules stand before the load balancer."
  }
}

run "no_certificate_without_a_name" {
  command = plan

  module {
    source = "./modules/alb"
  }

  variables {
    hostname = ""
    zone_id  = ""
    ports    = run.settings.ports
    settings = run.settings.alb
  }

  expect_failures = [var.hostname, var.zone_id]
}

run "an_old_policy" {
  command = plan

  module {
    source = "./modules/alb"
  }

  variables {
    ports    = run.settings.ports
    settings = merge(run.settings.alb, { ssl_policy = "ELBSecurityPolicy-2016-08" })
  }

  expect_failures = [var.settings]
}

run "a_path_that_is_none" {
  command = plan

  module {
    source = "./modules/alb"
  }

  variables {
    ports    = run.settings.ports
    settings = merge(run.settings.alb, { api_paths = ["api/*"] })
  }

  expect_failures = [var.settings]
}

run "a_rate_that_aws_refuses" {
  command = plan

  module {
    source = "./modules/alb"
  }

  variables {
    ports    = run.settings.ports
    settings = merge(run.settings.alb, { waf_requests_per_address = 1 })
  }

  expect_failures = [var.settings]
}
