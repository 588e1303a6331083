"""What the services ask of AWS for themselves, secrets, and not to be scaled in at the wrong time."""
