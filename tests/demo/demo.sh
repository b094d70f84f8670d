#!/usr/bin/env bash
# Walks through the whole tutorial on a private Boxyard with the real docker command, showing every command and
# its output, and takes everything down again. A command that does not end as it should ends the demo.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
boxyard=${BOXYARD_BIN_DIR:-$top/target/release}/boxyard
cache=${XDG_CACHE_HOME:-$HOME/.cache}/boxyard
home=$(mktemp -d /tmp/demo.XXXXXX)

bold= plain= dim=
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m' dim=$'\e[2m'; fi

leave() {
    local code=$?
    if [ -d "$home/data" ]; then
        echo "${dim}# stopping Boxyard${plain}"
        "$boxyard" down --data-dir "$home/data" || true
    fi
    [ "$code" = 0 ] || for log in "$home"/data/logs/*; do [ -f "$log" ] && tail -n 5 "$log"; done
    rm -rf --one-file-system "$home"
    [ "$code" = 0 ] && echo "${bold}The tutorial ran from its first command to its last.${plain}"
    exit "$code"
}
trap leave EXIT

say() { printf '\n%s# %s%s\n' "$dim" "$*" "$plain"; }
# Shows a command as typed, then runs it.
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; eval "$*" 2>&1; }
# The same for a command that must fail with this exit code.
fails() {
    local want=$1 got=0
    shift
    printf '%s$ %s%s\n' "$bold" "$*" "$plain"
    eval "$*" 2>&1 || got=$?
    [ "$got" = "$want" ] || { echo "expected exit code $want, got $got"; exit 1; }
}

say "A private Boxyard: nats-server, gateway, registry-sync, layer-store, build-worker and node-runtime"
port=$((20000 + RANDOM % 10000))
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
registry=127.0.0.1:$port
show "$boxyard up --data-dir $home/data --host unix://$home/docker.sock --workers 1 --registry $registry --registry-mirror http://$registry --detach"
export DOCKER_HOST=unix://$home/docker.sock BOXYARD_HOST=unix://$home/docker.sock
export DOCKER_BUILDKIT=0 DOCKER_CLI_HINTS=false DOCKER_CONFIG=$home/client
mkdir -p "$DOCKER_CONFIG" "$home/work"
cd "$home/work"
show "$boxyard status --data-dir $home/data"
show docker version --format "'{{.Client.Version}} talks to {{.Server.Version}}, API {{.Server.APIVersion}}'"

say "Two images to start from, made on this machine: hello-world from nothing, and a Debian root named ubuntu"
mkdir hello && cp /bin/busybox hello/busybox
printf 'FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "echo", "Hello from Docker!"]\n' >hello/Dockerfile
show docker build -t hello-world hello
show docker import "$cache/debian-root-1.tar" ubuntu
show docker images

say "Running an image"
show docker run hello-world
say "A terminal inside a container"
show "printf 'tty\nexit\n' | script -qec 'docker run -it ubuntu /bin/bash' /dev/null"
say "A name, and what happens when it is taken"
show docker run --name first hello-world
fails 125 docker run --name first hello-world
say "Exit codes"
fails 42 docker run --rm ubuntu sh -c "'exit 42'"
fails 127 docker run --rm ubuntu nosuchcommand
say "The thin writable layer"
show docker run --name writer ubuntu sh -c "'echo note > /note; rm /etc/issue'"
show docker diff writer
show docker ps -as

say "The tutorial's Dockerfile"
show mkdir myDockerdir
show cd myDockerdir
printf 'FROM ubuntu\nMAINTAINER shilps\nRUN apt-get update\nCMD ["echo", "Hello World, welcome to Docker"]\n' >Dockerfile
show cat Dockerfile
show docker build .
show docker images
show docker build -t first_docker_image .
show docker images
show docker images -a
show docker run --name test_container first_docker_image

say "The cache: a changed layer rebuilds itself and all above it, nothing below"
mkdir cached && cd cached
printf 'FROM ubuntu\nCOPY early /\nRUN echo middle\nCOPY late /\n' >Dockerfile
echo 1 >early && echo 1 >late
show docker build -q -t cached .
echo 2 >late
show docker build -t cached .
cd ..

say "Looking at images"
show docker history first_docker_image
show docker inspect first_docker_image -f "'{{.Author}} {{.Config.Cmd}}'"
show docker image inspect first_docker_image -f "'{{json .RootFS}}'"
show docker tag first_docker_image second_name:v1
show docker images --filter reference="'second*'"

say "Saving and loading"
show docker save -o first.tar first_docker_image
show tar tf first.tar
show docker rm test_container
fails 1 docker rmi nosuch
show docker rmi second_name:v1 first_docker_image
show docker load -i first.tar
show "docker save first_docker_image ubuntu | gzip > both.tar.gz && docker load -q -i both.tar.gz"
show docker run --rm first_docker_image

say "The interactive method: change a container by hand, keep it as an image"
show docker run --name hands ubuntu sh -c "'echo by hand > /note'"
show docker commit -m "'a note by hand'" -a shilps hands noted:1
show docker history noted:1
show docker run --rm noted:1 cat /note

say "Long-running containers"
show docker run -d --name clock ubuntu sh -c "'for i in 1 2 3; do echo tick \$i; sleep 1; done; sleep 60'"
show docker exec clock cat /etc/hostname
show docker top clock
show "sleep 3; docker logs --tail 2 clock"
show "docker cp clock:/etc/hostname - | tar t"
show docker stop -t 1 clock
show docker wait clock

say "The same through our own command"
show "$boxyard images"
show "$boxyard run --rm ubuntu echo hello from boxyard"
show "$boxyard history noted:1"

say "Registries: this Boxyard has one of its own, which is also the mirror of docker.io here"
show docker tag hello-world $registry/library/hello-world
show docker push $registry/library/hello-world
show docker push $registry/library/hello-world
show docker tag ubuntu $registry/library/centos
show docker push -q $registry/library/centos
show docker rmi -f hello-world $registry/library/hello-world $registry/library/centos
say "Images that are not here are pulled"
show docker run hello-world
show "printf 'tty\nexit\n' | script -qec 'docker run -it centos /bin/bash' /dev/null"
show docker pull hello-world
show docker pull -q $registry/library/hello-world
fails 1 docker pull $registry/library/nosuch
show docker images --digests
show docker manifest inspect --insecure $registry/library/hello-world
show "$boxyard manifest inspect -v hello-world"
show "$boxyard search $registry/hello"
show "$boxyard pull hello-world"
show docker rmi -f centos

say "Conflicts, removal, prune"
fails 1 docker rmi ubuntu
show docker rm first writer hands clock
show "docker rm \$(docker ps -aq)"
show docker rmi noted:1
show docker image prune -f
show docker image prune -af
show docker images -a
show docker system df
