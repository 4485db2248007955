-- What people did by hand, and through what.
CREATE TABLE whereby_trigger.actions (
    id      text COLLATE "C" PRIMARY KEY,
    at      double precision NOT NULL,
    actor   text COLLATE "C" NOT NULL,
    action  text COLLATE "C" NOT NULL,
    room    text COLLATE "C",
    webhook text COLLATE "C"
);
CREATE INDEX actions_at ON whereby_trigger.actions (at);
CREATE INDEX actions_room ON whereby_trigger.actions (room, at) WHERE room IS NOT NULL;
CREATE INDEX actions_webhook ON whereby_trigger.actions (webhook, at) WHERE webhook IS NOT NULL;
