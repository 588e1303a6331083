"""Who may log in, and how much; the same answer for SMTP and API."""
