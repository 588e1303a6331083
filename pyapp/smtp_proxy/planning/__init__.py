"""What a load needs and costs, and how autoscaling bears it."""
