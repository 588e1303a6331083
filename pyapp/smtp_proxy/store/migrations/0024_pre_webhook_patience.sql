-- Since when what waits for a webhook is tried: what is replayed, and what waited when its webhook was enabled, has its whole
-- time anew, however long ago it occurred.
-- Safe beside the previous release: its replays and `enable` leave both empty, so such events are given up by their age.
-- locks: webhooks, webhook_events

ALTER TABLE webhooks ADD COLUMN enabled_at timestamptz; -- null: never since it was added
ALTER TABLE webhook_events ADD COLUMN replayed_at timestamptz; -- null: never
COMMENT ON COLUMN webhooks.enabled_at IS 'when an operator enabled it last; what waited then is tried as if it had occurred then';
COMMENT ON COLUMN webhook_events.replayed_at IS 'when an operator replayed it last; it is tried as if it had occurred then';
