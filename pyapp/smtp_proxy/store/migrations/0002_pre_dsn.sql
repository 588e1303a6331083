-- What a client asked to be told of its message (RFC 3461). Null, and so without a byte in the row, for nearly all mail.
--
-- Safe beside the previous release, which names its columns and does not know these. Accepting locks envelopes and then
-- deliveries, claiming the other way round; so both are locked first.
-- locks: envelopes, deliveries

ALTER TABLE envelopes
    ADD COLUMN dsn_ret smallint, -- model.dsn.Ret
    ADD COLUMN dsn_envid text; -- xtext
ALTER TABLE deliveries
    ADD COLUMN dsn_notify smallint, -- model.dsn.Notify, bits
    ADD COLUMN dsn_orcpt text; -- type;xtext
