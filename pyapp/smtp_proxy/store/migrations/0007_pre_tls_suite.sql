-- The TLS cipher suite that a message came by, for the Received field (RFC 8314 4.3). Null, and so without a byte in the
-- row: it came without TLS, or before this release.
-- locks: envelopes

ALTER TABLE envelopes ADD COLUMN tls_suite integer;
COMMENT ON COLUMN envelopes.tls_suite IS 'number in IANA''s registry "TLS Cipher Suites"';
