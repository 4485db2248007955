-- When the body lost what it says of people, since body_retention was over or somebody is forgotten: such a webhook
-- cannot be replayed, and keeps no errors.
ALTER TABLE webhooks ADD COLUMN body_removed_at REAL;
-- True if somebody was forgotten while the run went on: what it raises or writes is not kept.
ALTER TABLE runs ADD COLUMN silent INTEGER NOT NULL DEFAULT 0;
