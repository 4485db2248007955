-- Who owns what is pending: a look for what nobody owns, or the dead, must not read all that this replica has itself.
CREATE INDEX IF NOT EXISTS webhooks_owner ON webhooks (owner, seq) WHERE state = 'pending';
