# The network load balancer by itself: what must hold whatever the numbers are, and which numbers are refused.

mock_provider "aws" {
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/mocked/0123456789abcdef" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/mocked/0123456789abcdef" }
  }
  mock_resource "aws_lb_listener" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/net/mocked/0123456789abcdef/0123456789abcdef" }
  }
}

variables {
  name               = "smtp-proxy-production"
  vpc_id             = "vpc-a"
  subnet_ids         = ["subnet-a", "subnet-b"]
  security_group_ids = ["sg-a"]
  zone_id            = ""
  hostname           = ""
}

run "settings" {
  command = plan

  module {
    source = "./tests/settings"
  }
}

run "nlb" {
  module {
    source = "./modules/nlb"
  }

  variables {
    ports    = run.settings.ports
    settings = run.settings.nlb
  }

  assert {
    condition     = { for service, listener in aws_lb_listener.smtp : service => listener.port } == { submission = 587, submissions = 465 }
    error_message = "The world submits at 587 and 465."
  }

  assert {
    condition = { for group, listener in aws_lb_listener.always : group => listener.port } == {
      submission-blue = 10587, submission-green = 20587, submissions-blue = 10465, submissions-green = 20465
    }
    error_message = "Each group of blue and green has a listener of its own, so that its targets are asked for health."
  }

  assert {
    condition     = alltrue([for listener in concat(values(aws_lb_listener.smtp), [aws_lb_listener.acme]) : listener.protocol == "TCP"])
    error_message = "TLS ends in the tasks, not here."
  }

  assert {
    condition     = alltrue([for group in aws_lb_target_group.smtp : group.proxy_protocol_v2 && group.preserve_client_ip == "false"])
    error_message = "Tasks learn the client's address from a PROXY header, and believe it because of who the peer is."
  }

  assert {
    condition     = !aws_lb_target_group.acme.proxy_protocol_v2
    error_message = "The issuer reads HTTP without a PROXY header."
  }

  assert {
    condition = alltrue([
      for group in concat(values(aws_lb_target_group.smtp), [aws_lb_target_group.acme]) :
      group.health_check[0].protocol == "HTTP" && group.health_check[0].port == "8081" && group.health_check[0].path == (group.port == 8089 ? "/healthz" : "/targetz")
    ])
    error_message = "Every group asks for health, on the port that answers."
  }

  assert {
    condition     = alltrue([for group in aws_lb_target_group.smtp : length(group.name) <= 32 && group.deregistration_delay == "300" && group.connection_termination == false])
    error_message = "Names fit, and sessions of a task that leaves are not cut."
  }

  assert {
    condition     = length(aws_route53_record.smtp) == 0
    error_message = "Without a zone there is no record."
  }
}

run "a_record" {
  module {
    source = "./modules/nlb"
  }

  variables {
    ports    = run.settings.ports
    settings = run.settings.nlb
    zone_id  = "Z0123456789ABC"
    hostname = "smtp.example.com"
  }

  assert {
    condition     = aws_route53_record.smtp[0].name == "smtp.example.com" && one(aws_route53_record.smtp[0].alias).name == output.dns_name
    error_message = "The host name leads to the load balancer."
  }
}

run "a_long_name" {
  command = plan

  module {
    source = "./modules/nlb"
  }

  variables {
    name     = "smtp-proxy-production-1"
    ports    = run.settings.ports
    settings = run.settings.nlb
  }

  expect_failures = [var.name]
}

run "an_idle_time_below_that_of_clients" {
  command = plan

  module {
    source = "./modules/nlb"
  }

  variables {
    ports    = run.settings.ports
    settings = merge(run.settings.nlb, { idle_timeout_seconds = 350 })
  }

  expect_failures = [var.settings]
}

run "two_ways_to_tell_the_client" {
  command = plan

  module {
    source = "./modules/nlb"
  }

  variables {
    ports    = run.settings.ports
    settings = merge(run.settings.nlb, { preserve_client_ip = true })
  }

  expect_failures = [var.settings]
}

run "a_delay_shorter_than_the_load_balancer_s" {
  command = plan

  module {
    source = "./modules/nlb"
  }

  variables {
    ports    = run.settings.ports
    settings = merge(run.settings.nlb, { deregistration_delay_seconds = 60 })
  }

  expect_failures = [var.settings]
}
