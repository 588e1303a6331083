//! The load engine: an SMTP client that outruns the servers it measures.
