# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``virt-node-probe``: determines what this node can do for guests and stores it in a folder.

It runs where launchers run, with their QEMU and libvirt: whether KVM can run a guest, which CPU models and machine
types there are. What libvirt learns about QEMU in the process is kept too, which saves each launcher more than a
second.
"""

import argparse
import ctypes
import grp
import logging
import os
import pwd
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from xml.etree import ElementTree

import libvirt

from turtles.api.guests import QEMU_UID
from turtles.command import Command
from turtles.launcher.errors import LaunchError
from turtles.launcher.libvirtd import LibvirtdError, warm_capability_cache
from turtles.launcher.process import check
from turtles.probe import kvm, node

log = logging.getLogger(__name__)

_KVM_DEVICE = Path("/dev/kvm")
_USERS, _GROUPS = Path("/etc/passwd"), Path("/etc/group")
# <linux/mount.h>, <linux/sched.h>
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 0x2
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str] | None = None) -> int:
    """Probe once; the exit status is 0 whatever the node can do, 1 if the folder can't be written."""
    command = Command("virt-node-probe", "Determines what a node can do for guests.")
    command.parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    command.parser.add_argument("--qemu-binary", default="/usr/bin/qemu-system-x86_64")
    return command.run(_run, argv, signals=False)


def _run(options: argparse.Namespace) -> int:
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        result = kvm.probe(emulator=options.qemu_binary) if _KVM_DEVICE.exists() else None
        works = result is not None and result.ok
        log.info("KVM probed", extra={"ok": works, "why": result.message if result else "no device"})
        _become_launcher(options.output, works)
        node.write(options.output, node.Findings(result, *_ask_libvirt(options.output, works)))
    except OSError as error:
        log.error("the node can't be probed: %s", error, extra={"folder": str(options.output)})
        return 1
    return 0


def _become_launcher(folder: Path, kvm_works: bool) -> None:
    """Switch to the launchers' user, with the devices they get, if this is root; the folder is then that user's.

    Only this process and what it starts see what is changed for that: the node's own files stay as they are.

    :raises OSError: if the kernel refuses.
    """
    if os.geteuid() != 0:
        return
    os.chown(folder, QEMU_UID, QEMU_UID)
    scratch = Path(mkdtemp())
    check(_LIBC.unshare(_CLONE_NEWNS), "unshare")
    check(_LIBC.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount /")
    check(_LIBC.mount(b"tmpfs", os.fsencode(scratch), b"tmpfs", 0, b"mode=755"), f"mount {scratch}")
    try:
        if _KVM_DEVICE.exists():
            twin, owner = scratch / "kvm", QEMU_UID if kvm_works else 0
            os.mknod(twin, 0o600 | stat.S_IFCHR, _KVM_DEVICE.stat().st_rdev)
            os.chown(twin, owner, owner)
            _put_over(twin, _KVM_DEVICE)
        # libvirt wants to know its user's and group's names.
        if not _known(lambda: pwd.getpwuid(QEMU_UID)):
            _append(_USERS, scratch, f"qemu:x:{QEMU_UID}:{QEMU_UID}::/:/usr/sbin/nologin\n")
        if not _known(lambda: grp.getgrgid(QEMU_UID)):
            _append(_GROUPS, scratch, f"qemu:x:{QEMU_UID}:\n")
    finally:
        _LIBC.umount2(os.fsencode(scratch), _MNT_DETACH)
        scratch.rmdir()
    os.setgroups([])
    os.setgid(QEMU_UID)
    os.setuid(QEMU_UID)


def _known(look: Callable[[], object]) -> bool:
    try:
        look()
    except KeyError:
        return False
    return True


def _append(file: Path, scratch: Path, line: str) -> None:
    copy = scratch / file.name
    copy.write_text(file.read_text() + line)
    _put_over(copy, file)


def _put_over(source: Path, target: Path) -> None:
    check(_LIBC.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None), f"mount {target}")


def _ask_libvirt(folder: Path, kvm_works: bool) -> tuple[str, ...]:
    """Return domain capabilities, host capabilities and the CPU's features; nothing if libvirt doesn't start.

    Its cache goes into *folder*.
    """
    documents: list[str] = []

    def ask(connection: libvirt.virConnect) -> None:
        documents.append(connection.getDomainCapabilities(virttype="kvm" if kvm_works else "qemu"))
        documents.append(connection.getCapabilities())
        documents.append(_features(connection, documents[0]) if kvm_works else "")

    cache = folder / node.CACHE
    try:
        cache.mkdir(exist_ok=True)
        warm_capability_cache(cache, ask)
    except (LaunchError, LibvirtdError, libvirt.libvirtError, OSError) as error:
        log.warning("libvirt gives no information about this node: %s", error)
        return ()
    return tuple(documents)


def _features(connection: libvirt.virConnect, domain_capabilities: str) -> str:
    """Return the CPU that guests with the model host-model get, with all of its features."""
    mode = ElementTree.fromstring(domain_capabilities).find("cpu/mode[@name='host-model']")  # noqa: S314 - libvirt's
    if mode is None or mode.get("supported") != "yes":
        return ""
    mode.tag = "cpu"
    mode.attrib.clear()
    try:
        return str(
            connection.baselineHypervisorCPU(
                None,
                None,
                None,
                "kvm",
                [ElementTree.tostring(mode, encoding="unicode")],
                libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
            )
        )
    except libvirt.libvirtError as error:
        log.warning("libvirt can't determine the CPU's features: %s", error)
        return ""


if __name__ == "__main__":
    sys.exit(main())
