-- When the body lost what it says of people, since body_retention was over or somebody is forgotten: such a webhook
-- cannot be replayed, and keeps no errors.
ALTER TABLE whereby_trigger.webhooks ADD COLUMN body_removed_at double precision;
-- True if somebody was forgotten while the run went on: what it raises or writes is not kept.
ALTER TABLE whereby_trigger.runs ADD COLUMN silent boolean NOT NULL DEFAULT false;
