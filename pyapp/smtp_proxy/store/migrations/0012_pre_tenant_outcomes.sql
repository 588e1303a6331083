-- What becomes of a tenant's mail that is not delivered: how long it is tried, who is told, which addresses get no more.
-- The previous release neither reads nor writes any of it.
ALTER TABLE tenants
    ADD COLUMN max_age_seconds integer CHECK (max_age_seconds > 0), -- null: RETRY_GIVE_UP_SECONDS
    ADD COLUMN reports text NOT NULL DEFAULT 'all' CHECK (reports IN ('all', 'requested', 'none')), -- model.outcome.Reports
    ADD COLUMN suppress_hard_bounces boolean NOT NULL DEFAULT false;

-- Addresses that get no more mail of a tenant. Looked up by its key for each recipient that is claimed.
CREATE TABLE suppressions (
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    address text NOT NULL, -- in lower case
    reason text NOT NULL, -- why, in words
    envelope_id uuid, -- whose refusal put it here; null: an operator did
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, address)
);
