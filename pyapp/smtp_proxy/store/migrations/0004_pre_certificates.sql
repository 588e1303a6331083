-- Which client certificate logs in as whom (AUTH EXTERNAL). An identity is the SHA-256 fingerprint of a certificate
-- (sha256:…) or a name in it (dns:…, email:…, uri:…, ip:…, cn:…), and belongs to one credential.

CREATE TABLE credential_certificates (
    identity text PRIMARY KEY,
    credential_id uuid NOT NULL REFERENCES credentials (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX credential_certificates_by_credential ON credential_certificates (credential_id);

-- Verified logins are cached in every process; they drop them when told.
CREATE TRIGGER credential_certificates_changed AFTER INSERT OR UPDATE OR DELETE ON credential_certificates
    FOR EACH STATEMENT EXECUTE FUNCTION notify_credentials();
