#!/bin/sh
# Makes the cluster's authority and credentials in the volume /state, once, and gives each service's volume below /out
# what that service may know. A member that was added to MEMBERS is let in at the next run.
set -eu
umask 077
export BOXYARD_DATA_DIR=/state

[ -e /state/cluster/head.json ] ||
    boxyard cluster init --address 127.0.0.1 --name nats --name store --name gateway >/dev/null
for member in $MEMBERS; do
    kind=${member%%-*}
    boxyard cluster ls | grep -qx "$kind *$member" ||
        boxyard cluster add "$kind" "$member" --output /state/bundle >/dev/null
done
rm -f /state/bundle
if [ ! -e /state/secrets/database ]; then
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >/state/secrets/postgres
    printf 'postgres://boxyard:%s@postgres/boxyard' "$(cat /state/secrets/postgres)" >/state/secrets/new
    mv /state/secrets/new /state/secrets/database
fi

# give SERVICE NAME=FILE...
give() {
    folder=/out/$1/secrets
    mkdir -p "$folder"
    shift
    for file in "$@"; do
        cp "/state/${file#*=}" "$folder/new"
        mv "$folder/new" "$folder/${file%%=*}"
    done
}
ca=ca.pem=cluster/ca.pem
token=token=secrets/store-token
give nats nats.conf=nats.conf
mkdir -p /out/nats/cluster
cp /state/cluster/nats.pem /state/cluster/nats.key /out/nats/cluster/
give postgres password=secrets/postgres
give store $ca $token password=secrets/store tokens=secrets/store-tokens cert.pem=cluster/store.pem key.pem=cluster/store.key
give gateway $ca $token password=secrets/gateway database=secrets/database cert.pem=cluster/streams.pem key.pem=cluster/streams.key
give sync $ca $token password=secrets/sync
for member in $MEMBERS; do
    kind=${member%%-*}
    give "$member" $ca "token=secrets/token-$kind-$member" "password=secrets/$kind-$member"
done
