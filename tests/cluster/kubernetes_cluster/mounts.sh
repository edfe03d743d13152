# mounts.sh: sourced where a machine's root is the current folder. /run, /dev, /proc and /sys are its own; control groups are
# as on the host: version 2, or the same hierarchies of version 1.
# shellcheck shell=sh
mount -t proc proc proc
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=755,size=64k dev dev
mkdir dev/net dev/pts dev/shm
for device in null zero full random urandom tty kmsg fuse kvm vhost-net net/tun; do
    if [ -c "/dev/$device" ]; then cp -a "/dev/$device" "dev/$device"; fi
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for stream in stdin:0 stdout:1 stderr:2; do ln -s "fd/${stream#*:}" "dev/${stream%:*}"; done

mount -t sysfs sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
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
