-- Where a tenant hears of its mail, and what is still to be told. Events are written in the transaction that records the
-- attempts, for tenants with webhooks alone; they lie in the partition of their message and are dropped with it.
-- The previous release records attempts without telling of them.

CREATE TABLE webhooks (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    url text NOT NULL,
    events text[] NOT NULL DEFAULT '{}', -- model.webhook.Event; none: all
    sealed_secret bytea NOT NULL,
    secret_key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    failing_since timestamptz, -- the first failure after the last success
    failures integer NOT NULL DEFAULT 0, -- rounds in a row in which nothing was taken
    paused_until timestamptz,
    last_error text NOT NULL DEFAULT ''
);
CREATE INDEX webhooks_by_tenant ON webhooks (tenant_id);

CREATE SEQUENCE webhook_event_sequence;
CREATE TABLE webhook_events (
    envelope_id uuid NOT NULL,
    webhook_id uuid NOT NULL,
    recipient_number smallint NOT NULL,
    attempt_number smallint NOT NULL,
    sequence bigint NOT NULL DEFAULT nextval('webhook_event_sequence'), -- the order within a message
    event text NOT NULL,
    occurred_at timestamptz NOT NULL,
    payload jsonb NOT NULL,
    state smallint NOT NULL DEFAULT 0, -- 0 waits, 1 taken, 2 given up
    tries smallint NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    last_error text NOT NULL DEFAULT '',
    PRIMARY KEY (envelope_id, webhook_id, recipient_number, attempt_number)
) PARTITION BY RANGE (envelope_id);
CREATE INDEX webhook_events_due ON webhook_events (webhook_id, due_at) WHERE state = 0;
CREATE TABLE webhook_events_default PARTITION OF webhook_events DEFAULT;

-- Every worker knows whether there are webhooks at all; it looks again when told.
CREATE FUNCTION notify_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('smtp_proxy_webhooks', '');
    RETURN NULL;
END $$;
CREATE TRIGGER webhooks_changed AFTER INSERT OR DELETE OR UPDATE OF disabled_at, paused_until ON webhooks
    FOR EACH STATEMENT EXECUTE FUNCTION notify_webhooks();
