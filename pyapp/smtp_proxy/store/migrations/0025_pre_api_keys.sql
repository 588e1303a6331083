-- Who may use the HTTP API, and for what. A key is known by its digest alone.
-- The previous release neither reads nor writes any of it.
-- locks: tenants

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name text NOT NULL, -- what people call it
    digest bytea NOT NULL UNIQUE, -- SHA-256 of the key, which is 256 random bits
    scopes text[] NOT NULL, -- model.api_key.ApiScope
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz, -- null: never
    revoked_at timestamptz,
    last_used_at timestamptz -- to the hour; null: never
);
-- A name that was revoked may be given again.
CREATE UNIQUE INDEX api_keys_by_name ON api_keys (tenant_id, name) WHERE revoked_at IS NULL;
