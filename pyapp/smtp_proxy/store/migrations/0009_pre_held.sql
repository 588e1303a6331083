-- Held mail (state 4) is found by its id, so oldest first, without reading the rest. The index has held rows alone: a
-- message that is not held costs it nothing but a look at its state.
-- online index: deliveries_held ON deliveries (envelope_id) WHERE state = 4

COMMENT ON COLUMN deliveries.state IS 'model.DeliveryState; 4, held: neither claimed nor swept until it is released';
