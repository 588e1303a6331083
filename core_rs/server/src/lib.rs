//! SMTP submission protocol, sans-IO.
