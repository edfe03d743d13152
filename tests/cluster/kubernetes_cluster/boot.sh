#!/bin/sh
# boot.sh NAME DIRECTORY CACHE PROGRAMS: make this machine's root and be its process 1. Runs in fresh namespaces (mount,
# network, process ids, host name, IPC, control groups). The root has the host's programs (/usr, read-only) and nothing
# else of the host: /etc, /var and /tmp are in DIRECTORY. Writes its process id, as the host counts, to DIRECTORY/pid when
# everything is there.
set -eu
name=$1 directory=$2 cache=$3 programs=$4
read -r pid _ </proc/self/stat
exec 3>"$directory/pid"

echo "$name" >/proc/sys/kernel/hostname
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward

root=$directory/root
mount -t tmpfs -o mode=755,size=16m root "$root"
cd "$root"
mkdir dev etc home mnt opt opt/cni opt/kubernetes opt/programs proc root run srv sys tmp usr var
chmod 700 root

mount --bind /usr usr
mount -o remount,bind,ro usr
for folder in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$folder" ]; then
        cp -P "/$folder" .
    elif [ -d "/$folder" ]; then
        mkdir "$folder"
        mount --bind "/$folder" "$folder"
        mount -o remount,bind,ro "$folder"
    fi
done
mount --bind "$cache" opt/kubernetes
mount -o remount,bind,ro opt/kubernetes
if [ -n "$programs" ]; then
    mount --bind "$programs" opt/programs
    mount -o remount,bind,ro opt/programs
fi
ln -s ../kubernetes/root/usr/lib/cni opt/cni/bin
mount --bind "$directory/var" var
mount --bind "$directory/tmp" tmp
mount --bind "$directory/etc" etc
chmod 1777 tmp
mkdir -p var/lib var/log
ln -sfn ../run var/run

for file in alternatives group ld.so.cache nsswitch.conf passwd protocols services; do
    if [ -e "/etc/$file" ]; then cp -a "/etc/$file" etc/; fi
done
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n' >etc/hosts
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >etc/resolv.conf
printf '%s' "$name" | md5sum | cut -c1-32 >etc/machine-id

. "$(dirname "$0")/mounts.sh"
# The kubelet sets these, which are the kernel's, not the machine's: let it set files that nobody reads.
mkdir run/sysctl
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
    kernel/keys/root_maxbytes; do
    file=run/sysctl/$(echo "$setting" | tr / .)
    cat "proc/sys/$setting" >"$file"
    mount --bind "$file" "proc/sys/$setting"
done

pivot_root . .
umount -l .
cd /
# As systemd has it: Pods pass mounts on to their node, and see its new ones.
mount --make-rshared /

echo "$pid" >&3
exec 3>&-
exec /opt/kubernetes/bin/pause
