CREATE SCHEMA IF NOT EXISTS whereby_trigger;

CREATE TABLE whereby_trigger.version (
    schema integer NOT NULL,
    admits integer NOT NULL
);
INSERT INTO whereby_trigger.version (schema, admits) VALUES (0, 1);

CREATE FUNCTION whereby_trigger.clock() RETURNS double precision LANGUAGE sql VOLATILE
AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';

CREATE SEQUENCE whereby_trigger.webhooks_seq;
CREATE TABLE whereby_trigger.webhooks (
    seq         bigint PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    type        text COLLATE "C" NOT NULL,
    room        text COLLATE "C",
    body        bytea NOT NULL,
    received_at double precision NOT NULL,
    queued_at   double precision NOT NULL,
    stored_at   double precision NOT NULL DEFAULT whereby_trigger.clock(),
    deliveries  integer NOT NULL DEFAULT 1,
    owner       text COLLATE "C",
    state       text COLLATE "C" NOT NULL CHECK (state IN
        ('pending', 'fired', 'skipped', 'notified', 'unhandled', 'failed', 'quarantined')),
    attempts    integer NOT NULL DEFAULT 0,
    takeovers   integer NOT NULL DEFAULT 0,
    reason      text NOT NULL DEFAULT '',
    decided_at  double precision,
    errors      text[] NOT NULL DEFAULT '{}',
    CHECK ((state = 'pending') = (decided_at IS NULL))
);
ALTER SEQUENCE whereby_trigger.webhooks_seq OWNED BY whereby_trigger.webhooks.seq;
CREATE INDEX webhooks_pending ON whereby_trigger.webhooks (owner, seq) WHERE state = 'pending';
CREATE INDEX webhooks_sessions ON whereby_trigger.webhooks (room)
    WHERE type IN ('room.session.started', 'room.session.ended');
-- What a session is told of its room: mostly the newest of many rooms, but everything since it began after a takeover.
CREATE INDEX webhooks_room ON whereby_trigger.webhooks (room, seq);
CREATE INDEX webhooks_decided ON whereby_trigger.webhooks (received_at) WHERE state <> 'pending';

CREATE TABLE whereby_trigger.replicas (
    id      text COLLATE "C" PRIMARY KEY,
    pid     integer NOT NULL,
    seen_at double precision NOT NULL,
    expires double precision NOT NULL
);

CREATE TABLE whereby_trigger.rooms (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text COLLATE "C" NOT NULL,
    url        text NOT NULL,
    state      text COLLATE "C" NOT NULL
        CHECK (state IN ('waiting', 'starting', 'live', 'ending', 'ended', 'failed')),
    owner      text COLLATE "C",
    webhook    text COLLATE "C",
    session_id text,
    asked_at   double precision NOT NULL,
    queued_at  double precision NOT NULL DEFAULT whereby_trigger.clock(),
    not_before double precision NOT NULL DEFAULT 0,
    since      double precision NOT NULL DEFAULT whereby_trigger.clock(),
    attempt    integer NOT NULL DEFAULT 0,
    restarts   integer NOT NULL DEFAULT 0,
    pid        integer,
    stop       text,
    successor  text,
    ticket     text,
    reason     text NOT NULL DEFAULT '',
    errors     text[] NOT NULL DEFAULT '{}',
    CHECK ((owner IS NULL) = (state IN ('waiting', 'ended', 'failed')))
);
CREATE UNIQUE INDEX rooms_open ON whereby_trigger.rooms (key) WHERE state NOT IN ('ended', 'failed');
CREATE INDEX rooms_waiting ON whereby_trigger.rooms (id) WHERE state = 'waiting';
CREATE INDEX rooms_waiting_since ON whereby_trigger.rooms (since) WHERE state = 'waiting';
CREATE INDEX rooms_owner ON whereby_trigger.rooms (owner) WHERE owner IS NOT NULL;
CREATE INDEX rooms_ended ON whereby_trigger.rooms (since) WHERE state IN ('ended', 'failed');
