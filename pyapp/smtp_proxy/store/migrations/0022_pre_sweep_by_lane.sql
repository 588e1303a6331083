-- The sweeper reads each lane by itself, so that what is due in one does not lie behind the backlog of the other.
-- "0 + state < 2" is "state IN (0, 1)" in words that the planner takes for nothing else: so what is asked of one lane is not
-- planned with deliveries_to_sweep, where both lie, and nothing else with this one. deliveries_to_sweep stays, for leases
-- and for the previous release. What is not bulk (1) is one part of it, so that a release that does not know a lane (it may
-- run beside a later one) sweeps it with what is transactional.
-- online index: deliveries_by_lane ON deliveries ((CASE lane WHEN 1 THEN 1 ELSE 0 END), sweep_at) WHERE 0 + state < 2

COMMENT ON INDEX deliveries_by_lane IS 'for the sweeper, which reads each lane by itself';
