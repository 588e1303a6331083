"""Which way a recipient's mail goes: the routes file, its rules, and the plan that comes of them."""
