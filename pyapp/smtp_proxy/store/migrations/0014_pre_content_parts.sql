-- A message longer than a page lies in parts that fill a page each, instead of in TOAST: a quarter of the rows and of the
-- index entries, written in whole pages (docs/decisions/0028-long-messages-in-parts.md). What was accepted before stays
-- where it is and is read there (store/claim.py).
--
-- Beside this the previous release can go on taking mail in. It can not deliver a long message that the new one takes in,
-- since it does not look here: start new workers before new SMTP services.

CREATE TABLE content_parts (
    envelope_id uuid NOT NULL,
    number integer NOT NULL, -- from 0
    content bytea NOT NULL,
    PRIMARY KEY (envelope_id, number)
) PARTITION BY RANGE (envelope_id);
ALTER TABLE content_parts ALTER COLUMN content SET STORAGE EXTERNAL; -- not compressed
CREATE TABLE content_parts_default PARTITION OF content_parts DEFAULT WITH (toast_tuple_target = 8160);
COMMENT ON COLUMN envelopes.content IS 'null: in content_parts, or, of messages before 0008, in bodies';
