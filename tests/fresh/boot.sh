#!/bin/sh
# boot.sh ROOT: make ROOT this machine's root and be its process 1. Runs in fresh namespaces (mount, network, process ids,
# host name, IPC, control groups). /run, /dev, /proc and /sys are the machine's own. Creates ROOT/run/booted, which is in
# its own /run, when everything is there; there is no systemd.
set -eu
root=$1

echo fresh >/proc/sys/kernel/hostname
ip link set lo up

# The root of a machine is a mount point.
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    # A group with processes in it can't have controllers for groups below it.
    mkdir sys/fs/cgroup/init
    echo 1 >sys/fs/cgroup/init/cgroup.procs
else
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    while IFS=: read -r _ controllers _; do
        case $controllers in
            '') folder=unified type=cgroup2 options=rw ;;
            name=*) folder=${controllers#name=} type=cgroup options=none,$controllers ;;
            *) folder=$controllers type=cgroup options=$controllers ;;
        esac
        mkdir "sys/fs/cgroup/$folder"
        mount -t "$type" -o "$options" cgroup "sys/fs/cgroup/$folder"
        if [ "$type" = cgroup ]; then
            for controller in $(echo "$folder" | tr , ' '); do
                if [ "$controller" != "$folder" ]; then ln -s "$folder" "sys/fs/cgroup/$controller"; fi
            done
        fi
    done </proc/self/cgroup
fi
mount -t tmpfs -o mode=755 run run
mkdir -m 1777 run/lock
mount -t tmpfs -o mode=755,size=64k dev dev
mkdir dev/net dev/pts dev/shm
for device in null zero full random urandom tty kvm vhost-net net/tun; do
    if [ -c "/dev/$device" ]; then cp -a "/dev/$device" "dev/$device"; fi
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for stream in stdin:0 stdout:1 stderr:2; do ln -s "fd/${stream#*:}" "dev/${stream%:*}"; done

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
