-- When the room was first taken, from where its max_duration counts: by the time of day, and by the machine's boot and
-- the seconds since. The latter hold within a boot, however the time of day is set.
ALTER TABLE rooms ADD COLUMN began_at REAL;
ALTER TABLE rooms ADD COLUMN began_boot TEXT;
ALTER TABLE rooms ADD COLUMN began_up REAL;
