#!/bin/sh
# PostgreSQL with the database `boxyard`, made at the first start. It listens in the cluster's network only.
set -eu
folder=/var/lib/boxyard
data=$folder/data
programs=$(echo /usr/lib/postgresql/*/bin)
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

cd /
chown postgres: $folder $folder/secrets $folder/secrets/*
if [ ! -e $data ]; then
    rm -rf $data.new
    as_postgres "$programs/initdb" --pgdata $data.new --username boxyard --pwfile $folder/secrets/password \
        --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8
    echo 'host all all all scram-sha-256' >>$data.new/pg_hba.conf
    echo 'CREATE DATABASE boxyard' | as_postgres "$programs/postgres" --single -D $data.new postgres
    mv $data.new $data
fi
exec setpriv --reuid postgres --regid postgres --init-groups \
    "$programs/postgres" -D $data -c jit=off -c 'listen_addresses=*' -c unix_socket_directories=
