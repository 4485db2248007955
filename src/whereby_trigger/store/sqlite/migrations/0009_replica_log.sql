-- When each replica started, and how it ended: what a room's history names, after its row in replicas is gone.
CREATE TABLE replica_log (
    id         TEXT PRIMARY KEY,
    started_at REAL NOT NULL,
    ended_at   REAL,
    ending     TEXT NOT NULL DEFAULT ''
);
-- The webhooks of one room, newest first.
CREATE INDEX IF NOT EXISTS webhooks_room ON webhooks (room, seq) WHERE room IS NOT NULL;
