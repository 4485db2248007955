-- When each replica started, and how it ended: what a room's history names, after its row in replicas is gone.
CREATE TABLE whereby_trigger.replica_log (
    id         text COLLATE "C" PRIMARY KEY,
    started_at double precision NOT NULL DEFAULT whereby_trigger.clock(),
    ended_at   double precision,
    ending     text COLLATE "C" NOT NULL DEFAULT ''
);
