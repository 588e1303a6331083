-- What a tenant wants to become of its mail. The previous release neither reads nor writes these; it tries again what may
-- have been taken.
ALTER TABLE tenants
    ADD COLUMN on_unknown text NOT NULL DEFAULT 'retry' CHECK (on_unknown IN ('retry', 'hold')),
    ADD COLUMN idempotency_seconds integer CHECK (idempotency_seconds > 0);
