//! `smtp-proxy-load`: puts load on an SMTP server and reports what it saw, as JSON.

fn main() {}
