-- The certificates that every replica serves, and what their issuer remembers between attempts. Private keys are sealed
-- with a key that the database does not have (smtp_proxy/sealing.py). The previous release serves files alone.

CREATE TABLE certificates (
    id uuid PRIMARY KEY,
    name text NOT NULL, -- what it is declared as, and its folder in TLS_CERT_DIR
    names text[] NOT NULL, -- DNS names, lower case; an imported one may have addresses too
    chain text NOT NULL, -- PEM, the certificate itself first
    sealed_key bytea NOT NULL, -- PKCS #8 (PEM), sealed
    secret_key_id text NOT NULL, -- which line of SECRET_KEY_FILE opens it
    not_before timestamptz NOT NULL,
    not_after timestamptz NOT NULL,
    directory text NOT NULL, -- URL of the ACME directory that it is from; empty: imported
    renew_at timestamptz, -- chosen within the window that the CA suggests (RFC 9773 4.2)
    ask_again_at timestamptz, -- when that may have changed
    state text NOT NULL DEFAULT 'current', -- current, replaced, revoked, removed
    replaced_by uuid REFERENCES certificates (id),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX certificates_current ON certificates (name) WHERE state = 'current';

-- An account at a CA (RFC 8555 7.3).
CREATE TABLE acme_accounts (
    id uuid PRIMARY KEY,
    directory text NOT NULL UNIQUE,
    kid text NOT NULL, -- its URL
    sealed_key bytea NOT NULL, -- PKCS #8 (PEM), sealed
    secret_key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- HTTP-01 (RFC 8555 8.3): whichever replica the CA reaches answers for all.
CREATE TABLE acme_challenges (
    token text PRIMARY KEY,
    key_authorization text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- What certificates are wanted, and how the last attempts went.
CREATE TABLE certificate_orders (
    name text PRIMARY KEY,
    names text[] NOT NULL,
    challenge text NOT NULL, -- http-01, dns-01
    declared_by text NOT NULL, -- file, operator
    attempts integer NOT NULL DEFAULT 0, -- failed since the last success
    next_try_at timestamptz, -- not before; null: whenever it is due
    asked_at timestamptz, -- an operator wants it now
    last_error text,
    alerted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION notify_certificates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('smtp_proxy_certificates', '');
    RETURN NULL;
END $$;
-- Replicas serve what is current; when it is renewed is the issuer's business alone.
CREATE TRIGGER certificates_changed AFTER INSERT OR DELETE OR UPDATE OF state, chain, sealed_key ON certificates
    FOR EACH STATEMENT EXECUTE FUNCTION notify_certificates();

-- Only what operators do wakes the issuer: not what it writes down itself.
CREATE FUNCTION notify_certificate_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('smtp_proxy_certificate_orders', '');
    RETURN NULL;
END $$;
CREATE TRIGGER certificate_orders_asked AFTER UPDATE ON certificate_orders
    FOR EACH ROW WHEN (NEW.asked_at IS NOT NULL AND NEW.asked_at IS DISTINCT FROM OLD.asked_at)
    EXECUTE FUNCTION notify_certificate_orders();
CREATE TRIGGER certificate_orders_made AFTER INSERT OR DELETE ON certificate_orders
    FOR EACH STATEMENT EXECUTE FUNCTION notify_certificate_orders();
