-- How long a tenant's mail is kept, and whether its content is once it is settled. The previous release drops nothing.
ALTER TABLE tenants
    ADD COLUMN retention_days integer CHECK (retention_days > 0), -- null: RETENTION_DAYS
    ADD COLUMN keep_bodies boolean NOT NULL DEFAULT true;
-- Whoever records attempts looks again whose content is not to be kept.
CREATE TRIGGER tenants_keep_bodies AFTER UPDATE OF keep_bodies ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION notify_webhooks();
