ALTER TABLE whereby_trigger.webhooks ADD COLUMN kept_until double precision NOT NULL DEFAULT 0;
