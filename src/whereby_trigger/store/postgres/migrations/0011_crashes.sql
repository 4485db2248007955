-- How many replicas have died with a webhook pending. Those that stopped are counted in takeovers alone.
ALTER TABLE whereby_trigger.webhooks ADD COLUMN crashes integer NOT NULL DEFAULT 0;
