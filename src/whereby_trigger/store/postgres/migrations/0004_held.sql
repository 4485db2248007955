-- Every row there is keeps to the narrower checks: to validate the wider ones would read all of them under the lock.
ALTER TABLE whereby_trigger.webhooks
    ADD COLUMN held_since double precision,
    ADD COLUMN due_at double precision,
    DROP CONSTRAINT webhooks_state_check,
    ADD CONSTRAINT webhooks_state_check CHECK (state IN
        ('pending', 'held', 'fired', 'skipped', 'notified', 'unhandled', 'failed', 'quarantined')) NOT VALID,
    DROP CONSTRAINT webhooks_check,
    ADD CONSTRAINT webhooks_check CHECK ((state IN ('pending', 'held')) = (decided_at IS NULL)) NOT VALID;
CREATE INDEX IF NOT EXISTS webhooks_held ON whereby_trigger.webhooks (owner, seq) WHERE state = 'held';
