-- The message itself moves into its envelope's row: one row, one index entry and one COPY less to write for each message
-- (docs/decisions/0026-content-in-envelopes.md). What was accepted before stays in `bodies` and is read there
-- (store/claim.py); a later post migration drops that table, when its last message is gone.
--
-- Beside this the previous release can go on taking mail in. It can not deliver what the new one takes in, since it looks
-- into `bodies`: start new workers before new SMTP services.
-- locks: envelopes

ALTER TABLE envelopes ADD COLUMN content bytea; -- null: in bodies
-- As it was for bodies (0001): not compressed, and below a page within the row.
ALTER TABLE envelopes ALTER COLUMN content SET STORAGE EXTERNAL;
DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'envelopes'::regclass LOOP
        EXECUTE format('ALTER TABLE %s SET (toast_tuple_target = 8160)', partition);
    END LOOP;
END $$;
