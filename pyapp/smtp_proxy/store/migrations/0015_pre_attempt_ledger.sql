-- The attempt ledger: before a message's final dot leaves, its attempt is written down with outcome 4 (unknown) and no
-- finished_at; what came of it overwrites that. Whoever gives a delivery back to the queue unrecorded (a sweep when its
-- lease has run out, a release, of this release or the one before) fires the trigger, which makes of such a row an attempt
-- like any other, and holds the delivery where its tenant wants that (tenants.on_unknown).
--
-- Safe beside the previous release: it never sees an unfinished row where it records, since giving back counts it.
-- locks: deliveries, attempts

ALTER TABLE attempts ALTER COLUMN finished_at DROP NOT NULL; -- null: under way, or its worker has died

CREATE FUNCTION settle_unknown() RETURNS trigger LANGUAGE plpgsql AS $$
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
    END IF;
    RETURN NULL;
END $$;
-- After and not before: for that every claimed and recorded row would be locked once more.
CREATE TRIGGER deliveries_given_back AFTER UPDATE OF state ON deliveries FOR EACH ROW
    WHEN (OLD.state = 1 AND NEW.state = 0 AND NEW.attempt_count = OLD.attempt_count)
    EXECUTE FUNCTION settle_unknown();
