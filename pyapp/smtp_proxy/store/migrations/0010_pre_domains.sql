-- Domains that a tenant sends from, and the keys that sign for them (DKIM). Private keys are sealed with a key that the
-- database does not have (smtp_proxy/sealing.py). The previous release knows nothing of these and signs nothing.

CREATE TABLE domains (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL, -- A-labels, lower case
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

CREATE TABLE domain_keys (
    id uuid PRIMARY KEY,
    domain_id uuid NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    selector text NOT NULL,
    algorithm text NOT NULL, -- as the a= tag says it: rsa-sha256, ed25519-sha256
    public_key bytea NOT NULL, -- as the p= tag has it, before BASE64
    sealed_key bytea NOT NULL, -- PKCS #8, sealed
    secret_key_id text NOT NULL, -- which line of SECRET_KEY_FILE opens it
    created_at timestamptz NOT NULL DEFAULT now(),
    signs_from timestamptz NOT NULL, -- its record is published before
    signs_until timestamptz, -- its record stays for days after; null: until it is replaced
    UNIQUE (domain_id, selector)
);

-- Every worker keeps the keys in memory; it reads them again when told.
CREATE FUNCTION notify_domains() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('smtp_proxy_domains', '');
    RETURN NULL;
END $$;
CREATE TRIGGER domains_changed AFTER INSERT OR UPDATE OR DELETE ON domains
    FOR EACH STATEMENT EXECUTE FUNCTION notify_domains();
CREATE TRIGGER domain_keys_changed AFTER INSERT OR UPDATE OR DELETE ON domain_keys
    FOR EACH STATEMENT EXECUTE FUNCTION notify_domains();
