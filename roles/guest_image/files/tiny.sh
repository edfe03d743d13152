#!/bin/sh
# The tiny guest's own programs in one file; the name it is called by says which part runs:
#   init          first process of the initramfs: finds the disk and hands over to busybox init on it
#   rc            once a boot: devices, NoCloud seed, network, SSH
#   dhcp          what udhcpc calls with a lease (busybox udhcpc's script interface)
#   power-button  waits for the ACPI power button and shuts down
#   shutdown      what the guest agent and people call
# POSIX shell as busybox ash has it.
export PATH=/bin HOME=/root

say() {
    echo "tiny: $* ($(cut -d' ' -f1 /proc/uptime) s)" >/dev/console
}

# Load the drivers of the devices that are there, then those of what these bring up: a disk behind a controller, and so on.
probed=
probe() {
    while devices=$(cat /sys/bus/*/devices/*/modalias /sys/class/input/*/modalias 2>/dev/null | sort -u) &&
        [ "$devices" != "$probed" ]; do
        probed=$devices
        # shellcheck disable=SC2086
        modprobe -a -q $devices 2>/dev/null
    done
}

initramfs() {
    mount -t devtmpfs dev /dev
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    tries=0
    # A disk on USB shows up when it likes.
    while probe; ! root=$(findfs LABEL=tiny-root 2>/dev/null); do
        tries=$((tries + 1))
        if [ $tries -gt 1000 ]; then
            say "no disk with a filesystem labelled tiny-root; devices: $(echo "$probed" | tr '\n' ' ')"
            poweroff -f
        fi
        usleep 20000
    done
    modprobe -a -q ext4 crc32c_generic
    mount -t ext4 -o noatime "$root" /mnt || poweroff -f
    umount /proc
    umount /sys
    mount -o move /dev /mnt/dev
    exec switch_root /mnt /bin/init
}

# NoCloud or a config drive, on whichever disk it is: known by its files, as busybox can't read an ISO's label.
mount_seed() {
    for device in /dev/vd? /dev/sr? /dev/sd?; do
        [ -b "$device" ] || continue
        [ -b "${device}1" ] && continue
        mount -t iso9660 -o ro "$device" /seed 2>/dev/null || mount -t vfat -o ro "$device" /seed 2>/dev/null || continue
        for directory in /seed /seed/openstack/latest; do
            for file in "$directory"/meta-data "$directory"/meta_data.json; do
                [ -e "$file" ] || continue
                meta_data=$file
                user_data=$directory/user-data
                [ -e "$user_data" ] || user_data=$directory/user_data
                say "seed on $device"
                return 0
            done
        done
        umount /seed
    done
    return 1
}

# On USB devices are found in the background. There is such a bus only if the machine has such devices.
wait_for_usb() { # command: ends the waiting when it succeeds
    tries=0
    while [ -e /sys/bus/usb/devices/usb1 ] && [ $tries -lt 10 ]; do
        tries=$((tries + 1))
        usleep 500000
        probe
        "$@" && return
    done
    return 1
}

seed_value() { # key, file: the text of a top level key, of YAML or of JSON
    sed -n -e 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' -e 's/^'"$1"': *//p' "$2" 2>/dev/null | head -n1 |
        sed "s/^[\"']\(.*\)[\"'] *$/\1/"
}

apply_seed() {
    name=$(seed_value local-hostname "$meta_data")
    name=${name:-$(seed_value hostname "$meta_data")}
    name=${name:-$(seed_value hostname "$user_data")}
    [ -n "$name" ] && echo "$name" >/etc/hostname
    grep -ohE '(ssh-(rsa|ed25519)|ecdsa-sha2-[a-z0-9]+) [A-Za-z0-9+/=]{40,}( [^"'"'"',]*)?' \
        "$user_data" "$meta_data" >/tmp/keys 2>/dev/null
    if [ -s /tmp/keys ]; then
        mv /tmp/keys /root/.ssh/authorized_keys
        chmod 600 /root/.ssh/authorized_keys
    fi
    password=$(seed_value password "$user_data")
    [ -n "$password" ] && echo "root:$password" | chpasswd >/dev/null 2>&1
    instance=$(seed_value instance-id "$meta_data")
    instance=${instance:-$(seed_value uuid "$meta_data")}
    # As with cloud-init a script runs once an instance, not at every boot of a disk that stays.
    if [ "$instance" != "$(cat /var/lib/seed-instance 2>/dev/null)" ] || [ -z "$instance" ]; then
        if [ "$(head -c2 "$user_data" 2>/dev/null)" = '#!' ]; then
            cp "$user_data" /var/lib/seed-script
            chmod 700 /var/lib/seed-script
        fi
        echo "$instance" >/var/lib/seed-instance
    fi
}

run_seed_script() { # after the network is there, as scripts expect
    [ -e /var/lib/seed-script ] || return 0
    tries=0
    while [ ! -e /run/lease ] && [ $tries -lt 100 ]; do
        usleep 100000
        tries=$((tries + 1))
    done
    mv /var/lib/seed-script /run/seed-script
    /run/seed-script >/var/log/seed-script.log 2>&1
    say "user-data script ended with status $?"
}

start_network() {
    ip link set lo up
    for device in /sys/class/net/*/device; do
        [ -e "$device" ] || continue
        interface=${device%/device}
        interface=${interface##*/}
        ip link set "$interface" up
        # The options named here are not among those busybox asks for by itself.
        udhcpc -i "$interface" -b -S -t 30 -T 1 -A 1 -O staticroutes -O mtu -O search -x hostname:"$(hostname)" \
            -s /bin/dhcp >/dev/null 2>&1 &
    done
}

start_agent() {
    mkdir -p /dev/virtio-ports
    for name in /sys/class/virtio-ports/*/name; do
        [ -e "$name" ] || continue
        port=${name%/name}
        ln -sf "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$name")"
    done
    agent=/dev/virtio-ports/org.qemu.guest_agent.0
    if [ -x /bin/qemu-ga ] && [ -e $agent ]; then
        qemu-ga -d -m virtio-serial -p $agent -t /run -f /run/qemu-ga.pid >/dev/null 2>&1
    fi
}

rc() {
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mkdir -p /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /tmp
    probe
    modprobe -q evdev
    if mount_seed || wait_for_usb mount_seed; then
        apply_seed
    fi
    wait_for_usb false &
    hostname -F /etc/hostname
    echo "127.0.0.1 localhost $(hostname)" >/etc/hosts
    start_network
    key=/etc/dropbear/ed25519
    [ -s $key ] || dropbearkey -t ed25519 -f $key >/dev/null 2>&1
    dropbear -E -r $key -p 22 2>>/var/log/dropbear.log
    start_agent
    run_seed_script &
    say "$(hostname) is up"
}

# udhcpc gives the lease in the environment.
# shellcheck disable=SC2154
lease() {
    case "$1" in
    deconfig)
        ip link set "$interface" up
        ;;
    bound | renew)
        ip addr flush dev "$interface" scope global
        ip addr add "$ip/${mask:-24}" dev "$interface"
        [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
        # RFC 3442: with classless routes the router option is not used. A gateway outside of the subnet (as with
        # a /32 address) needs "onlink".
        if [ -n "$staticroutes" ]; then
            # shellcheck disable=SC2086
            set -- $staticroutes
            while [ $# -ge 2 ]; do
                if [ "$2" = 0.0.0.0 ]; then
                    ip route replace "$1" dev "$interface"
                else
                    ip route replace "$1" via "$2" dev "$interface" onlink
                fi
                shift 2
            done
        elif [ -n "$router" ]; then
            ip route replace default via "${router%% *}" dev "$interface" onlink
        fi
        : >/etc/resolv.conf
        [ -n "$search$domain" ] && echo "search ${search:-$domain}" >>/etc/resolv.conf
        for server in $dns; do
            echo "nameserver $server" >>/etc/resolv.conf
        done
        echo "$ip" >/run/lease
        say "$interface has $ip/${mask:-24}"
        ;;
    esac
}

power_button() {
    for name in /sys/class/input/event*/device/name; do
        [ "$(cat "$name" 2>/dev/null)" = "Power Button" ] || continue
        event=${name%/device/name}
        dd if="/dev/input/${event##*/}" of=/dev/null bs=24 count=1 2>/dev/null && exec /bin/shutdown
    done
    exec sleep 3600
}

stop() { # -r: reboot
    sync
    mount -o remount,ro / 2>/dev/null
    case " $* " in
    *" -r "*) reboot -f ;;
    *) poweroff -f ;;
    esac
}

case "${0##*/}" in
init) initramfs ;;
rc) rc ;;
dhcp) lease "$@" ;;
power-button) power_button ;;
shutdown) stop "$@" ;;
esac
