-- What a client asked to be told of its message (RFC 3461). Null, and so without a byte in the row, for nearly all mail.
--
-- Safe beside the previous release, which names its columns and does not know these. Accepting locks envelopes and then
-- deliveries, claiming the other way round; so both are locked here without ever waiting long for the second while
-- holding the first, or one of the three would be a deadlock's victim.
DO $$
BEGIN
    FOR attempt IN 1..100 LOOP
        BEGIN
            SET LOCAL lock_timeout = '2s'; -- so long at most does everybody queue behind us
            LOCK TABLE envelopes IN ACCESS EXCLUSIVE MODE;
            SET LOCAL lock_timeout = '200ms'; -- well below deadlock_timeout
            LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            -- The locks went with the block.
            PERFORM pg_sleep(0.2);
        END;
    END LOOP;
    RAISE lock_not_available USING MESSAGE = 'envelopes and deliveries are in use by long statements; migrate again later';
END $$;

ALTER TABLE envelopes
    ADD COLUMN dsn_ret smallint, -- model.dsn.Ret
    ADD COLUMN dsn_envid text; -- xtext
ALTER TABLE deliveries
    ADD COLUMN dsn_notify smallint, -- model.dsn.Notify, bits
    ADD COLUMN dsn_orcpt text; -- type;xtext
