ALTER TABLE replicas ADD COLUMN boot TEXT NOT NULL DEFAULT '';
ALTER TABLE replicas ADD COLUMN expires REAL NOT NULL DEFAULT 0;

CREATE TABLE rooms (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT NOT NULL,
    url        TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'starting', 'live', 'ending', 'ended', 'failed')),
    owner      TEXT,
    webhook    TEXT,
    session_id TEXT,
    asked_at   REAL NOT NULL,
    queued_at  REAL NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    since      REAL NOT NULL,
    attempt    INTEGER NOT NULL DEFAULT 0,
    restarts   INTEGER NOT NULL DEFAULT 0,
    pid        INTEGER,
    stop       TEXT,
    successor  TEXT,
    reason     TEXT NOT NULL DEFAULT '',
    errors     TEXT NOT NULL DEFAULT '[]',
    CHECK ((owner IS NULL) = (state IN ('waiting', 'ended', 'failed')))
);
CREATE UNIQUE INDEX rooms_open ON rooms (key) WHERE state NOT IN ('ended', 'failed');
CREATE INDEX rooms_ended ON rooms (since) WHERE state IN ('ended', 'failed');

CREATE INDEX webhooks_sessions ON webhooks (room) WHERE type IN ('room.session.started', 'room.session.ended');
