-- Who is in each room by its newest counts. Times are createdAt, but for the last two: when `humans` took its value by
-- the store's clock, and when the newest delivery came, after which the retention counts. No column that changes has an
-- index: a write finds its place on the row's own page.
CREATE TABLE whereby_trigger.presence (
    key              text COLLATE "C" PRIMARY KEY,
    humans           integer NOT NULL,
    bots             integer NOT NULL,
    session_id       text,
    humans_since     double precision NOT NULL,
    changed_at       double precision NOT NULL,
    differed_at      double precision NOT NULL,
    humans_stored_at double precision NOT NULL DEFAULT whereby_trigger.clock(),
    received_at      double precision NOT NULL
) WITH (fillfactor = 70);
