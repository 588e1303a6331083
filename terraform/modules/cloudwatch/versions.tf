terraform {
  required_version = ">= 1.9, < 2.0"

  required_providers {
    # The last release of major 5; pulumi-aws 6.83 bridges the same. docs/decisions/0036 says how to go on to the next.
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}
