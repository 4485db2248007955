-- When the body lost what it says of people, since body_retention was over or somebody is forgotten: such a webhook
-- cannot be replayed, and keeps no errors.
ALTER TABLE whereby_trigger.webhooks ADD COLUMN body_removed_at double precision;
-- True if somebody was forgotten while the run went on: what it raises or writes is not kept.
ALTER TABLE whereby_trigger.runs ADD COLUMN silent boolean NOT NULL DEFAULT false;

-- The planner's statistics keep samples of a column's values. What may say something of a person is never sampled, and
-- no query selects by it. The same type again reads no row, but drops the samples that are there.
ALTER TABLE whereby_trigger.webhooks
    ALTER COLUMN body TYPE bytea, ALTER COLUMN body SET STATISTICS 0,
    ALTER COLUMN errors TYPE text[], ALTER COLUMN errors SET STATISTICS 0;
ALTER TABLE whereby_trigger.rooms
    ALTER COLUMN reason TYPE text, ALTER COLUMN reason SET STATISTICS 0,
    ALTER COLUMN errors TYPE text[], ALTER COLUMN errors SET STATISTICS 0;
ALTER TABLE whereby_trigger.runs
    ALTER COLUMN reason TYPE text, ALTER COLUMN reason SET STATISTICS 0,
    ALTER COLUMN output TYPE text, ALTER COLUMN output SET STATISTICS 0;
