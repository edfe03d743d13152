# SPDX-License-Identifier: GPL-3.0-or-later
"""A hand-made launcher Pod: a network namespace made by real CNI plugins, the folders of its emptyDir volumes and a
private non-root libvirtd in its own mount namespace. Needs root."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from turtles.api.node_server import Endpoint
from turtles.handler.migration_proxy import MigrationProxy

#: Guests come from nowhere, and go nowhere.
PROXY = MigrationProxy("127.0.0.1", 0, bind="127.0.0.1")

LIBVIRT_DRIVER = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")
CNI_BIN_DIR = "/usr/lib/cni"

LAUNCHER = "--name {name} --namespace {namespace} --uid {uid}"
UNSHARE = "unshare --mount --uts --pid --fork --kill-child --mount-proc"
SCRIPT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/dev/pts /mnt/dev/shm /mnt/dev/net /mnt/run /mnt/w /mnt/c /mnt/d
mount --bind "$WORK" /mnt/w
mount --bind "$CACHE" /mnt/c
mount --bind "$DRIVERS" /mnt/d
for d in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
  IFS=: read -r n a b <<< "$d"; mknod -m 666 /mnt/dev/$n c $a $b
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /mnt/dev/pts
ln -s pts/ptmx /mnt/dev/ptmx; ln -s /proc/self/fd /mnt/dev/fd; chmod 1777 /mnt/dev/shm
mkdir -p /mnt/run/kubevirt /mnt/run/kubevirt-private /mnt/run/kubevirt-ephemeral-disks /mnt/run/libvirt
mount --bind "$VOLUMES/public" /mnt/run/kubevirt
mkdir -p /mnt/run/kubevirt/sockets
mount --bind "$VOLUMES/sockets" /mnt/run/kubevirt/sockets
mount --bind "$VOLUMES/private" /mnt/run/kubevirt-private
mount --bind "$VOLUMES/ephemeral-disks" /mnt/run/kubevirt-ephemeral-disks
mount --bind "$VOLUMES/libvirt-runtime" /mnt/run/libvirt
echo "root:x:0:0::/:/bin/sh
qemu:x:107:107::/:/bin/sh" > "$WORK/passwd"
echo "root:x:0:
qemu:x:107:" > "$WORK/group"
echo "127.0.0.1 localhost $(hostname)" > "$WORK/hosts"
mount --bind "$WORK/passwd" /etc/passwd
mount --bind "$WORK/group" /etc/group
mount --bind "$WORK/hosts" /etc/hosts
mount --rbind /mnt/run /run
mount --rbind /mnt/dev /dev
cd /
if [ -n "$LAUNCHER" ]; then
  : > "$WORK/termination-log"
  echo 67 > /proc/sys/net/ipv4/ip_unprivileged_port_start
  # Imported as root, as the Pod runner does: the Python that runs the tests may lie where uid 107 can't read.
  exec "$PYTHON" -c '
import os, sys
from turtles.launcher.main import main
os.setgroups([]); os.setgid(107); os.setuid(107)
sys.exit(main(sys.argv[1:]))' $LAUNCHER >> "$WORK/log" 2>&1
fi
if [ -n "$PROGRAM" ]; then
  exec setpriv --reuid 107 --regid 107 --clear-groups --bounding-set -all python3 -c "$PROGRAM" >> "$WORK/log" 2>&1
fi
exec setpriv --reuid 107 --regid 107 --clear-groups --bounding-set -all \
  python3 -c '
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
def start():
    try: os.unlink("/run/kubevirt/sockets/libvirt-sock")
    except FileNotFoundError: pass
    return subprocess.Popen(["/usr/sbin/libvirtd", "-f", os.environ["WORK"] + "/libvirtd.conf"])
p = start()
while True:
    pid, status = os.wait()
    if pid == p.pid: p = start()
' >>"$WORK/log" 2>&1
"""

CONF = 'unix_sock_dir = "/run/kubevirt/sockets"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
QEMU_CONF = 'security_driver = "none"\nstdio_handler = "file"\ncgroup_controllers = []\nnamespaces = []\n'


def find_nobody(node: str) -> Endpoint:
    """Know no other node."""
    raise LookupError(node)


class Pod:
    """One fake Pod. ``cache`` may be shared between Pods so that libvirt probes QEMU's capabilities once."""

    def __init__(self, root: Path, bridge: str, subnet: str, cache: Path) -> None:
        self.uid = str(uuid.uuid4())
        self.netns = f"tt{self.uid[:8]}"
        self.root = root
        self.pods_dir = root / "pods"
        self.volumes = self.pods_dir / self.uid / "volumes" / "kubernetes.io~empty-dir"
        self.work = root / "work" / self.uid
        self.conf = {
            "cniVersion": "1.0.0",
            "name": f"{bridge}net",
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "mtu": 1400,
            "ipam": {
                "type": "host-local",
                "dataDir": str(root / "cni"),
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        for name in ("public", "private", "sockets", "ephemeral-disks", "libvirt-runtime"):
            (self.volumes / name).mkdir(parents=True)
        for name in ("cfg/libvirt", "data", "run"):
            (self.work / name).mkdir(parents=True)
        cache.mkdir(exist_ok=True)
        self.cache = cache
        drivers = root / "drivers"
        drivers.mkdir(exist_ok=True)
        if not (drivers / LIBVIRT_DRIVER.name).exists():
            (drivers / LIBVIRT_DRIVER.name).symlink_to(LIBVIRT_DRIVER)
        (self.work / "libvirtd.conf").write_text(CONF)
        (self.work / "cfg/libvirt/qemu.conf").write_text(QEMU_CONF)
        subprocess.run(["chown", "-R", "107:107", str(self.volumes), str(self.work), str(cache)], check=True)
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        result = json.loads(self.cni("ADD"))
        self.ip = result["ips"][0]["address"].split("/")[0]
        self.process: subprocess.Popen[bytes] | None = None

    def cni(self, command: str) -> str:
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.uid,
            "CNI_NETNS": f"/var/run/netns/{self.netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": CNI_BIN_DIR,
        }
        done = subprocess.run(
            [f"{CNI_BIN_DIR}/bridge"], input=json.dumps(self.conf), env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def socket(self) -> Path:
        return self.volumes / "sockets" / "libvirt-sock"

    def start(self, wait: bool = True, vmi: dict[str, Any] | None = None, program: str = "") -> None:
        """Start a bare libvirtd, virt-launcher for a *vmi*, or a Python *program* in its place."""
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/mnt/w",
            "LAUNCHER": LAUNCHER.format(**vmi["metadata"]) if vmi else "",
            "PROGRAM": program,
            "PYTHON": sys.executable,
            "CACHE": str(self.cache),
            "DRIVERS": str(self.root / "drivers"),
            "WORK": str(self.work),
            "VOLUMES": str(self.volumes),
            "XDG_RUNTIME_DIR": "/mnt/w/run",
            "XDG_CONFIG_HOME": "/mnt/w/cfg",
            "XDG_CACHE_HOME": "/mnt/c",
            "XDG_DATA_HOME": "/mnt/w/data",
            "LIBVIRT_DRIVER_DIR": "/mnt/d",
        }
        # A pid namespace of its own: its first process takes everything in it along.
        self.process = subprocess.Popen(
            [*f"ip netns exec {self.netns} {UNSHARE} bash -c".split(), SCRIPT],
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while wait and not self._listens():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def _listens(self) -> bool:
        """Whether somebody listens, if only with a queue that is full: the socket is there a moment before."""
        if not self.socket.exists():
            return False
        directory = os.open(self.socket.parent, os.O_PATH)  # the path may be too long for a socket
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                return client.connect_ex(f"/proc/self/fd/{directory}/{self.socket.name}") in (0, errno.EAGAIN)
        finally:
            os.close(directory)

    def log(self) -> str:
        path = self.work / "log"
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        """End every process of the Pod at once."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.kill()
        self.cni("DEL")
        subprocess.run(["ip", "netns", "del", self.netns], check=True)
