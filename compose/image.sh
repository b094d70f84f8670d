#!/usr/bin/env bash
# Builds the image `boxyard` from target/release, with the docker command at DOCKER_HOST: a dockerd, or a Boxyard.
#
#   compose/image.sh [NAME]      BASE=IMAGE names another Debian 12 than debian:bookworm-slim
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
programs=${BOXYARD_BIN_DIR:-$here/../target/release}
nats=$(PATH=$("$here/../tests/setup/setup.sh" --path):$PATH command -v nats-server) ||
    { echo "image.sh: there is no nats-server: run make setup" >&2; exit 1; }

services=(boxyard boxyard-{gateway,layer-store,registry-sync,build-worker,node,shim})
tar --create --dereference --owner=0 --group=0 \
    -C "$here" Dockerfile slim.cfg init.sh machine.sh postgres.sh -C "$programs" "${services[@]}" -C "$(dirname "$nats")" nats-server |
    DOCKER_BUILDKIT=0 docker build ${BASE:+--build-arg "BASE=$BASE"} -t "${1:-boxyard}" -
