CREATE TABLE runs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    entry      INTEGER NOT NULL,
    key        TEXT NOT NULL,
    webhook    TEXT,
    replica    TEXT,
    attempt    INTEGER NOT NULL,
    pid        INTEGER,
    started_at REAL NOT NULL,
    live_at    REAL,
    ended_at   REAL,
    outcome    TEXT,
    reason     TEXT NOT NULL DEFAULT '',
    exit_code  INTEGER,
    signal     INTEGER,
    exception  TEXT,
    output     TEXT NOT NULL DEFAULT '',
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
-- An attempt has one run.
CREATE UNIQUE INDEX runs_entry ON runs (entry, attempt);
-- A room is looked up by its name, or by its whole key.
CREATE INDEX runs_room ON runs (substr(key, instr(key, '/')), id);
CREATE INDEX runs_ended ON runs (ended_at);
-- The runs of a time are found without reading what they wrote.
CREATE INDEX runs_started ON runs (started_at, id, ended_at);
CREATE INDEX IF NOT EXISTS rooms_name ON rooms (substr(key, instr(key, '/')), id);
CREATE INDEX IF NOT EXISTS rooms_webhook ON rooms (webhook) WHERE webhook IS NOT NULL;
-- The entries of a time, and those that are not over, are found without reading the others.
CREATE INDEX IF NOT EXISTS rooms_asked ON rooms (queued_at, id, state, since);

-- Until now, only what the last run of a room wrote was kept, with the room. When that run began is not known.
INSERT INTO runs (entry, key, webhook, attempt, started_at, ended_at, outcome, reason, output)
SELECT id, key, webhook, attempt, queued_at, since, CASE WHEN stop IS NULL THEN 'failed' ELSE 'stopped' END, reason,
    (SELECT group_concat(value, char(10)) FROM json_each(errors))
FROM rooms WHERE errors <> '[]' AND owner IS NULL ORDER BY id;
