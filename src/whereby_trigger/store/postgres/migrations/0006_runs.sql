CREATE TABLE whereby_trigger.runs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry      bigint NOT NULL,
    key        text COLLATE "C" NOT NULL,
    webhook    text COLLATE "C",
    replica    text COLLATE "C",
    attempt    integer NOT NULL,
    pid        integer,
    started_at double precision NOT NULL,
    live_at    double precision,
    ended_at   double precision,
    outcome    text COLLATE "C",
    reason     text NOT NULL DEFAULT '',
    exit_code  integer,
    signal     integer,
    exception  text,
    output     text NOT NULL DEFAULT '',
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
-- An attempt has one run.
CREATE UNIQUE INDEX runs_entry ON whereby_trigger.runs (entry, attempt);
-- A room is looked up by its name, or by its whole key.
CREATE INDEX runs_room ON whereby_trigger.runs (substr(key, strpos(key, '/')), id);
CREATE INDEX runs_ended ON whereby_trigger.runs (ended_at);
-- The runs of a time are found without reading what they wrote.
CREATE INDEX runs_started ON whereby_trigger.runs (started_at, id, ended_at);
CREATE INDEX IF NOT EXISTS rooms_name ON whereby_trigger.rooms (substr(key, strpos(key, '/')), id);
CREATE INDEX IF NOT EXISTS rooms_webhook ON whereby_trigger.rooms (webhook) WHERE webhook IS NOT NULL;

-- Until now, only what the last run of a room wrote was kept, with the room. When that run began is not known.
INSERT INTO whereby_trigger.runs (entry, key, webhook, attempt, started_at, ended_at, outcome, reason, output)
SELECT id, key, webhook, attempt, queued_at, since, CASE WHEN stop IS NULL THEN 'failed' ELSE 'stopped' END, reason,
    array_to_string(errors, E'\n')
FROM whereby_trigger.rooms WHERE errors <> '{}' AND owner IS NULL ORDER BY id;
