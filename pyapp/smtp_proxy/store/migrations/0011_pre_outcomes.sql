-- Why an attempt ended as it did, what its sender was told of a delay, and what was given up and is tried again.
--
-- Safe beside the previous release, which names its columns: its attempts are of kind 0, not classified, and mail that was
-- replayed has for it the age of its arrival.
-- locks: deliveries, attempts
-- Dead letters (state 3) are found by their id, without reading what was delivered.
-- online index: deliveries_dead ON deliveries (envelope_id) WHERE state = 3

ALTER TABLE attempts ADD COLUMN kind smallint NOT NULL DEFAULT 0; -- model.attempt.Kind
ALTER TABLE deliveries
    ADD COLUMN delay_reported_at timestamptz, -- null: the sender was not told that it takes long
    ADD COLUMN replayed_at timestamptz, -- null: its age counts from its arrival
    ADD COLUMN replayed_attempts smallint; -- attempts behind it when it was replayed
