-- Why a delivery waits that was put back without an attempt: its next hop is busy, a limit is used up, its body is missing.
-- Safe beside the previous release, whose postponements leave it empty, and whose claims leave what is there: it is shown only
-- while the delivery waits, and an attempt says more.
-- locks: deliveries

ALTER TABLE deliveries ADD COLUMN waits_for text; -- null: for nothing but its time
COMMENT ON COLUMN deliveries.waits_for IS 'why it was put back without an attempt; null: for nothing but its time';
