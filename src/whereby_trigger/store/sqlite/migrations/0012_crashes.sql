-- How many replicas have died with a webhook pending. Those that stopped are counted in takeovers alone.
ALTER TABLE webhooks ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
