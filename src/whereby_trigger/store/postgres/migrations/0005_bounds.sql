-- When the room was first taken: an assistant's max_duration counts from there.
ALTER TABLE whereby_trigger.rooms ADD COLUMN began_at double precision;
