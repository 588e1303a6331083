-- From where a credential may log in; empty: from everywhere.
ALTER TABLE credentials ADD COLUMN allowed_networks cidr[] NOT NULL DEFAULT '{}';
