-- A batch is sent as one array of rows. As one array for each column, it costs the replica a fifth more.
-- Never alter these types: replicas of this version send rows of this shape. A row that changes gets a new type.
CREATE TYPE whereby_trigger.arrival AS (
    id text,
    type text,
    room text,
    body bytea,
    received_at double precision,
    owner text,
    state text,
    reason text,
    decided_at double precision,
    deliveries integer,
    kept_until double precision,
    humans integer,
    bots integer,
    session_id text,
    at double precision
);
CREATE TYPE whereby_trigger.decision AS (
    seq bigint,
    id text,
    owner text,
    state text,
    reason text,
    attempts integer,
    decided_at double precision,
    errors text,
    body bytea
);
