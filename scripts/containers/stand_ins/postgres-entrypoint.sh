#!/bin/sh
# What the real image's entrypoint does with the settings of deploy/compose/compose.yaml: at the first start it makes the
# cluster, the user and the database, through a server that listens on its socket alone. Then it is the server.
set -eu
install -d -o postgres -g postgres -m 700 "$PGDATA"
install -d -o postgres -g postgres -m 2775 /var/run/postgresql
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }

if ! [ -s "$PGDATA/PG_VERSION" ]; then
    as_postgres initdb --username="$POSTGRES_USER" --pwfile="/dev/stdin" --auth-host=scram-sha-256 \
        --auth-local=trust <"$POSTGRES_PASSWORD_FILE"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    as_postgres pg_ctl --wait -o '-c listen_addresses=' start
    as_postgres createdb --username="$POSTGRES_USER" --maintenance-db=postgres "$POSTGRES_DB"
    as_postgres pg_ctl --wait --mode=fast stop
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups "$@" -c listen_addresses='*'
