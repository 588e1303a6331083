-- Priority lanes: which mail goes first (model.Lane; docs/decisions/0031-priority-lanes.md). The previous release stores
-- nothing there, so its mail is transactional, and delivers bulk mail like any other. And a route that an operator chose
-- for single messages, which the previous release does not heed.
-- locks: deliveries, tenants, credentials

ALTER TABLE deliveries
    ADD COLUMN lane smallint NOT NULL DEFAULT 0,
    ADD COLUMN route text; -- null: as the routes say
ALTER TABLE tenants ADD COLUMN lane smallint NOT NULL DEFAULT 0;
ALTER TABLE credentials ADD COLUMN lane smallint; -- null: as its tenant's

COMMENT ON COLUMN deliveries.lane IS 'model.Lane';
