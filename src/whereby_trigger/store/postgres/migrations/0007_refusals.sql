CREATE TABLE whereby_trigger.refusals (
    minute  bigint NOT NULL,
    reason  text COLLATE "C" NOT NULL,
    replica text COLLATE "C" NOT NULL,
    status  integer NOT NULL,
    count   bigint NOT NULL,
    PRIMARY KEY (minute, reason, replica)
);
