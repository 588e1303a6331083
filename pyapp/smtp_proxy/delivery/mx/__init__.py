"""Direct delivery: from a domain to the hosts that take its mail, and what must be true of them."""
