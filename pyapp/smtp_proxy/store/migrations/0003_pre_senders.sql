-- Which reverse-paths a credential may use; none: any. Patterns as `tenants/senders.py` keeps them. The previous release
-- neither reads nor writes the column; it lets every credential send as anybody.
ALTER TABLE credentials ADD COLUMN allowed_senders text[] NOT NULL DEFAULT '{}';
