-- What people did by hand, and through what.
CREATE TABLE actions (
    id      TEXT PRIMARY KEY,
    at      REAL NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    room    TEXT,
    webhook TEXT
);
CREATE INDEX actions_at ON actions (at);
CREATE INDEX actions_room ON actions (room, at) WHERE room IS NOT NULL;
CREATE INDEX actions_webhook ON actions (webhook, at) WHERE webhook IS NOT NULL;
