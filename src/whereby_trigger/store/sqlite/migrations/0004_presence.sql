-- Who is in each room by its newest counts. Times are createdAt, but for the last two: when `humans` took its value by
-- the store's clock, and when the newest delivery came, after which the retention counts.
CREATE TABLE presence (
    key              TEXT PRIMARY KEY,
    humans           INTEGER NOT NULL,
    bots             INTEGER NOT NULL,
    session_id       TEXT,
    humans_since     REAL NOT NULL,
    changed_at       REAL NOT NULL,
    differed_at      REAL NOT NULL,
    humans_stored_at REAL NOT NULL,
    received_at      REAL NOT NULL
) WITHOUT ROWID;
