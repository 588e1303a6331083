-- Why a delivery waits that was put back without an attempt: its next hop is busy, a limit is used up, it can not be read.
-- Safe beside the previous release: its postponements leave the column as it is, and so do its claims and attempts, so what
-- `explain` says of such a delivery may be of an earlier postponement until a worker of this release has it in hand.
-- locks: deliveries

ALTER TABLE deliveries ADD COLUMN waits_for text; -- null: for nothing but its time
COMMENT ON COLUMN deliveries.waits_for IS 'why it was put back without an attempt; null: for nothing but its time';
