CREATE TABLE version (
    schema INTEGER NOT NULL,
    admits INTEGER NOT NULL
);
INSERT INTO version (schema, admits) VALUES (0, 1);

CREATE TABLE webhooks (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    type        TEXT NOT NULL,
    room        TEXT,
    body        BLOB NOT NULL,
    received_at REAL NOT NULL,
    queued_at   REAL NOT NULL,
    deliveries  INTEGER NOT NULL DEFAULT 1,
    owner       TEXT,
    -- Not IN: for more than two values SQLite makes up a table of them, for every row that is written.
    state       TEXT NOT NULL CHECK (
        state = 'pending' OR state = 'fired' OR state = 'skipped' OR state = 'notified' OR state = 'unhandled'
        OR state = 'failed' OR state = 'quarantined'
    ),
    attempts    INTEGER NOT NULL DEFAULT 0,
    takeovers   INTEGER NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    decided_at  REAL,
    errors      TEXT NOT NULL DEFAULT '[]',
    CHECK ((state = 'pending') = (decided_at IS NULL))
);
CREATE INDEX webhooks_pending ON webhooks (seq) WHERE state = 'pending';
CREATE INDEX webhooks_decided ON webhooks (received_at) WHERE state <> 'pending';

CREATE TABLE replicas (
    id      TEXT PRIMARY KEY,
    pid     INTEGER NOT NULL,
    seen_at REAL NOT NULL
);
