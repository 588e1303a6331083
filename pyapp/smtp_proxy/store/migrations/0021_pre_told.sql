-- Tenants also hear of attempts that nobody recorded (found to be of unknown outcome when their delivery was given back),
-- and what was given up for a webhook is found without reading what was told.
--
-- Safe beside the previous release: its sweeps fire the trigger and tell, it posts whatever event is in the outbox, and its
-- keys stay. What is told of a change by an operator has an attempt number below 0, which no attempt has.
-- locks: webhook_events
-- online index: webhook_events_given_up ON webhook_events (webhook_id, envelope_id) WHERE state = 2

-- As the statement tell_webhooks, for one attempt.
CREATE FUNCTION tell_unknown(which_envelope uuid, which_recipient smallint, which_attempt smallint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO webhook_events (envelope_id, webhook_id, recipient_number, attempt_number, event, occurred_at, due_at, payload)
    SELECT a.envelope_id, w.id, a.recipient_number, a.attempt_number, v.event, a.finished_at, now(),
        jsonb_build_object(
            'event', v.event,
            'message', jsonb_build_object('id', e.id, 'tenant_id', e.tenant_id, 'from', e.reverse_path,
                'received_at', to_char(e.received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
            'recipient', d.recipient,
            'attempt', jsonb_build_object('number', a.attempt_number, 'reply_code', a.reply_code,
                'enhanced_code', a.enhanced_code, 'reply_text', a.reply_text, 'remote', a.remote),
            'next_attempt_at', CASE WHEN v.event = 'deferred'
                THEN to_char(d.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END
        )
    FROM attempts a
    JOIN deliveries d ON d.envelope_id = a.envelope_id AND d.recipient_number = a.recipient_number
    JOIN envelopes e ON e.id = a.envelope_id
    JOIN webhooks w ON w.tenant_id = e.tenant_id AND w.disabled_at IS NULL
    CROSS JOIN LATERAL (SELECT CASE WHEN d.state = 4 THEN 'held' ELSE 'deferred' END AS event) v
    WHERE a.envelope_id = which_envelope AND a.recipient_number = which_recipient AND a.attempt_number = which_attempt
        AND (cardinality(w.events) = 0 OR v.event = ANY (w.events))
    ON CONFLICT DO NOTHING
$$;

-- As in 0015, and tells of it.
CREATE OR REPLACE FUNCTION settle_unknown() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE attempts SET finished_at = now()
    WHERE envelope_id = OLD.envelope_id AND recipient_number = OLD.recipient_number
        AND attempt_number = OLD.attempt_count + 1 AND outcome = 4 AND finished_at IS NULL;
    IF FOUND THEN
        UPDATE deliveries SET attempt_count = OLD.attempt_count + 1, state = CASE WHEN (
                SELECT t.on_unknown <> 'retry' FROM envelopes e JOIN tenants t ON t.id = e.tenant_id
                WHERE e.id = OLD.envelope_id
            ) THEN 4 ELSE 0 END
        WHERE envelope_id = OLD.envelope_id AND recipient_number = OLD.recipient_number;
        PERFORM tell_unknown(OLD.envelope_id, OLD.recipient_number, (OLD.attempt_count + 1)::smallint);
    END IF;
    RETURN NULL;
END $$;
