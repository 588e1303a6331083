-- The sweeper reads each lane by itself, so that what is due in one does not lie behind the backlog of the other.
-- "state < 2" is what "state IN (0, 1)" means, in words of which the planner does not know that: so no statement about one
-- lane is planned with deliveries_to_sweep, where both lie. That stays, for leases and for the previous release.
-- online index: deliveries_by_lane ON deliveries (lane, sweep_at) WHERE state < 2

COMMENT ON COLUMN deliveries.lane IS 'model.Lane';
