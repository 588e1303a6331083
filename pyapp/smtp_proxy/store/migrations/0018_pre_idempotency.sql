-- Idempotent submission: which message a key stands for, and until when. Written in the transaction that accepts the message,
-- so that whoever brings the same key meanwhile waits for that to end. Only mail of tenants that want it is here.

CREATE TABLE submission_keys (
    credential_id uuid NOT NULL,
    digest bytea NOT NULL, -- SHA-256 of what the message is known by (ingress/once.py)
    envelope_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (credential_id, digest)
);
CREATE INDEX submission_keys_by_expiry ON submission_keys (expires_at);
