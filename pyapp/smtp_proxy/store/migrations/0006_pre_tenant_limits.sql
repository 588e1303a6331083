-- What a tenant may send, and what becomes of more. NULL: any number. Heard by every ingress through tenants_changed.
ALTER TABLE tenants
    ADD COLUMN messages_per_minute integer CHECK (messages_per_minute > 0),
    ADD COLUMN recipients_per_minute integer CHECK (recipients_per_minute > 0),
    ADD COLUMN max_sessions integer CHECK (max_sessions > 0),
    ADD COLUMN at_limit text NOT NULL DEFAULT 'reject' CHECK (at_limit IN ('reject', 'delay', 'hold'));
