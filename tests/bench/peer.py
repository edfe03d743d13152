# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plain libvirt, which the engine is measured beside: private libvirtds with the engine's own domains."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

UID, GID = 65534, 65534  # nobody: an ordinary user, as the launcher is, that every host has


def until(holds: Callable[[], bool], limit: float, pause: float = 0.02) -> bool:
    """Wait until something holds; False if it doesn't within so many seconds."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that the launcher's user can reach, removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="turtles-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unpacked_disk(instance: str) -> Path:
    """The container disk's file where the Pod runner has unpacked it."""
    found = [p for p in Path(f"/var/lib/{instance}").rglob("disk/*") if p.is_file() and p.suffix in (".qcow2", ".img")]
    return found[0]


def prepare_libvirtd(folder: Path) -> None:
    """Make the folders and the configuration of a libvirtd that runs as the launcher's user."""
    for name in ("run", "config/libvirt", "cache", "data", "disks"):
        (folder / name).mkdir(parents=True)
    (folder / "config/libvirt/qemu.conf").write_text(
        'stdio_handler = "file"\ncgroup_controllers = []\nnamespaces = []\nsecurity_driver = "none"\n'
    )
    (folder / "libvirtd.conf").write_text(f'unix_sock_dir = "{folder}/run"\n')
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, GID)


def libvirtd_command(folder: Path, *, kvm: bool, mounts: Sequence[tuple[Path, Path]] = ()) -> list[str]:
    """The command that runs a libvirtd that was prepared.

    :param kvm: its guests may use it.
    :param mounts: what it sees where, and nobody else does.
    """
    # devices with modes of our own, seen only by this libvirtd: as the launcher, it gets KVM where that works
    devices = {"/dev/net/tun": (10, 200, 0o666), "/dev/kvm": (10, 232, 0o666 if kvm else 0o600)}
    seen = list(mounts)
    for device, (major, minor, mode) in devices.items():
        if Path(device).exists():
            node = folder / Path(device).name
            os.mknod(node, 0o20000 | mode, os.makedev(major, minor))
            node.chmod(mode)
            seen.append((node, Path(device)))
    folders = {
        "HOME": "data",
        "XDG_RUNTIME_DIR": "run",
        "XDG_CONFIG_HOME": "config",
        "XDG_CACHE_HOME": "cache",
        "XDG_DATA_HOME": "data",
    }
    environment = " ".join(f"{key}={folder}/{value}" for key, value in folders.items())
    script = "".join(f"mount --bind {source} {target} && " for source, target in seen)
    return [
        *("unshare", "--mount", "sh", "-c"),
        f"{script} exec setpriv --reuid {UID} --regid {GID} --clear-groups env -i "
        f"PATH=/usr/sbin:/usr/bin:/sbin:/bin {environment} libvirtd -f {folder}/libvirtd.conf",
    ]


def adapted(xml: str, name: str, files: Sequence[Path], tap: str, mac: str, place: Path) -> str:
    """The engine's domain with another name, and what it uses elsewhere.

    :param files: of its disks, in their order.
    :param place: folder of its sockets.
    """
    root = ET.fromstring(xml)
    root.find("name").text, own = name, str(uuid.uuid4())  # type: ignore[union-attr]
    for element in [*root.iter("uuid"), *root.findall("sysinfo/system/entry[@name='uuid']")]:
        element.text = own
    for tag in ("seclabel", "metadata"):
        for element in root.findall(tag):
            root.remove(element)
    for disk, source in zip(root.iter("disk"), files, strict=True):
        disk.find("source").set("file", str(source))  # type: ignore[union-attr]
        for element in disk.findall("backingStore"):
            disk.remove(element)
    nic = root.find("devices/interface")
    assert nic is not None
    nic.find("target").set("dev", tap)  # type: ignore[union-attr]
    nic.find("mac").set("address", mac)  # type: ignore[union-attr]
    for element in [*root.iter("source"), *root.iter("listen"), *root.iter("graphics"), *root.iter("log")]:
        for key in ("path", "socket"):
            if element.get(key):
                element.set(key, str(place / Path(element.get(key, "")).name))
    for element in root.iter("log"):
        element.set("file", str(place / "serial.log"))
    return ET.tostring(root, encoding="unicode")
