#!/bin/sh
# Prepares a container to be the machine of a node or of a build worker, and becomes that program.
set -eu

# Docker gives these to be read only.
umount /proc/sys 2>/dev/null || true # it is none where all is given
awk '$2 ~ "^/sys" && $4 ~ "^ro" { print $2 }' /proc/mounts | while read -r point; do
    mount -o remount,bind,rw "$point"
done

# On cgroup v2 a group gives controllers to those below it only when it has no processes of its own.
groups=/sys/fs/cgroup
if [ -e $groups/cgroup.controllers ]; then
    mkdir -p $groups/services
    while read -r pid; do
        echo "$pid" >$groups/services/cgroup.procs 2>/dev/null || true
    done <$groups/cgroup.procs
    sed 's/^/+/; s/ / +/g' $groups/cgroup.controllers >$groups/cgroup.subtree_control
else
    # On v1 this container's group is the root of those below it, as it is on v2.
    set -- unshare --cgroup "$@"
fi

# When this container is stopped, its own containers are stopped before: they cannot outlive it.
mkdir -p "$BOXYARD_MACHINE_DIR"
touch "$BOXYARD_MACHINE_DIR/stop-containers"
exec "$@"
