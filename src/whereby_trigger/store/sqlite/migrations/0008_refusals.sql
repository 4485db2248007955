CREATE TABLE refusals (
    minute  INTEGER NOT NULL,
    reason  TEXT NOT NULL,
    replica TEXT NOT NULL,
    status  INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (minute, reason, replica)
);
