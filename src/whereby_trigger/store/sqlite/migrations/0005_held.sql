-- SQLite cannot change a CHECK, and to copy the table would take minutes: only its text is changed, which loosens it, by
-- the procedure of sqlite.org/lang_altertable.html, section 7. ADD COLUMN tells other connections to read it again.
PRAGMA writable_schema = ON;
UPDATE sqlite_master SET sql = replace(replace(
    sql,
    'state = ''pending'' OR state = ''fired''', 'state = ''pending'' OR state = ''held'' OR state = ''fired'''),
    'CHECK ((state = ''pending'') = (decided_at IS NULL))',
    'CHECK ((state = ''pending'' OR state = ''held'') = (decided_at IS NULL))'
) WHERE type = 'table' AND name = 'webhooks';
-- Reads the text again in this connection, or the columns would be added to the old one.
PRAGMA writable_schema = RESET;
ALTER TABLE webhooks ADD COLUMN held_since REAL;
ALTER TABLE webhooks ADD COLUMN due_at REAL;
CREATE INDEX webhooks_held ON webhooks (owner) WHERE state = 'held';
