-- The spine: tenants, credentials, and the mail itself.
--
-- Envelopes, bodies, deliveries and attempts are partitioned by envelope id. Ids are UUIDv7 and so sorted by
-- time: a partition is a span of days, retention is a dropped partition, and a lookup by id reads one partition.
-- No foreign keys between them: all four are written in the accepting transaction or by the worker that holds the
-- claim, and partitions of a span are dropped together.

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

CREATE TABLE credentials (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    username text NOT NULL UNIQUE,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

CREATE TABLE envelopes (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    credential_id uuid NOT NULL,
    reverse_path text NOT NULL,
    recipient_count integer NOT NULL,
    size_bytes integer NOT NULL,
    body_type smallint NOT NULL,
    smtputf8 boolean NOT NULL,
    helo text NOT NULL,
    client_address text NOT NULL,
    tls boolean NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX envelopes_by_tenant ON envelopes (tenant_id, id);

CREATE TABLE bodies (
    envelope_id uuid NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (envelope_id)
) PARTITION BY RANGE (envelope_id);
-- Not compressed: pglz costs more than all the rest of accepting a message. Inherited by partitions, whose
-- toast_tuple_target keeps bodies below a page in their row (store/partitions.py).
ALTER TABLE bodies ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE TABLE deliveries (
    envelope_id uuid NOT NULL,
    recipient_number smallint NOT NULL,
    recipient text NOT NULL,
    state smallint NOT NULL DEFAULT 0, -- model.DeliveryState
    attempt_count smallint NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(), -- not before; by the database's own clock for what is fresh
    sweep_at timestamptz NOT NULL, -- when the sweeper acts if nobody else has
    claimed_by uuid,
    finished_at timestamptz,
    PRIMARY KEY (envelope_id, recipient_number)
) PARTITION BY RANGE (envelope_id);
CREATE INDEX deliveries_to_sweep ON deliveries (sweep_at) WHERE state IN (0, 1);

CREATE TABLE attempts (
    envelope_id uuid NOT NULL,
    recipient_number smallint NOT NULL,
    attempt_number smallint NOT NULL,
    outcome smallint NOT NULL, -- model.Outcome
    reply_code smallint NOT NULL,
    enhanced_code text NOT NULL,
    reply_text text NOT NULL,
    remote text NOT NULL,
    worker_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (envelope_id, recipient_number, attempt_number)
) PARTITION BY RANGE (envelope_id);

-- Whatever falls outside the spans made ahead is kept all the same.
CREATE TABLE envelopes_default PARTITION OF envelopes DEFAULT;
CREATE TABLE bodies_default PARTITION OF bodies DEFAULT WITH (toast_tuple_target = 8160);
CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- Verified logins are cached in every process; they drop them when told.
CREATE FUNCTION notify_credentials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('smtp_proxy_credentials', '');
    RETURN NULL;
END $$;
CREATE TRIGGER credentials_changed AFTER INSERT OR UPDATE OR DELETE ON credentials
    FOR EACH STATEMENT EXECUTE FUNCTION notify_credentials();
CREATE TRIGGER tenants_changed AFTER UPDATE OR DELETE ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION notify_credentials();
