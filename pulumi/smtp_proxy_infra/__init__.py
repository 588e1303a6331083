"""The AWS stack of smtp-proxy, the twin of terraform/: one component and its arguments for each module there.

`stack` puts them together, `settings` reads the numbers that both sides share. tests/infra compares the two. No code of
the application is imported here.
"""
