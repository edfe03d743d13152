#!/bin/sh
# boot.sh ROOT: make ROOT this machine's root and be its process 1. Runs in fresh namespaces (mount, network, process ids,
# host name, IPC, control groups). Creates ROOT/run/booted, which is in its own /run, when everything is there; there is
# no systemd.
set -eu
root=$1

echo fresh >/proc/sys/kernel/hostname
ip link set lo up

# The root of a machine is a mount point.
mount --bind "$root" "$root"
cd "$root"
. "$(dirname "$0")/../cluster/kubernetes_cluster/mounts.sh"
if [ -e sys/fs/cgroup/cgroup.controllers ]; then
    # A group with processes in it can't have controllers for groups below it.
    mkdir sys/fs/cgroup/init
    echo 1 >sys/fs/cgroup/init/cgroup.procs
fi
mkdir -m 1777 run/lock

pivot_root . .
umount -l .
cd /
mount --make-rshared /
: >/run/booted
# The shell reaps whatever ends in the meantime.
while :; do
    sleep 86400 &
    wait $!
done
