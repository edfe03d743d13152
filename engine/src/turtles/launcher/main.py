# SPDX-License-Identifier: GPL-3.0-or-later
"""The command virt-launcher: process 1 of a VM's Pod, an ordinary user without access to the API.

It prepares the disks, runs the VM's private libvirtd, answers the guest's DHCP and watches over all of it. The node
agent delivers the VMI as a file, and defines and starts the domain through libvirt's socket, which appears when the
disks are ready. When the domain is undefined again, the launcher ends and with it the Pod.

Importing this module loads everything a launcher needs and starts nothing, so that a process that has imported it can
be forked for every VM.
"""

import argparse
import logging
import sys
from pathlib import Path

import libvirt

from turtles import termination
from turtles.command import Command
from turtles.domain import paths
from turtles.launcher import (
    attachment,
    cloudinit,
    hooks,
    tail,
)
from turtles.launcher.delivery import Delivery
from turtles.launcher.errors import LaunchError
from turtles.launcher.launcher import Launcher, ignore_libvirt_error
from turtles.launcher.libvirtd import LibvirtdError, warm_capability_cache

log = logging.getLogger(__name__)

# Loads what pycdlib loads when it is used (codecs): a forked launcher may be unable to read Python's library.
cloudinit.render_seed("cidata", {"openstack/meta-data": b""})

#: Where the node's warmed capability cache is mounted, if there is one.
CAPABILITY_CACHE = Path("/var/cache/turtles-launcher")

#: What a Pod runs whose only purpose is to be scheduled.
PROVISION = "provision"


def main(argv: list[str] | None = None) -> int:
    """Run the launcher until its VM is gone.

    :param argv: arguments without the program's name; None takes the process's own.
    :return: the exit status: 0 when the domain was undefined or after SIGTERM, 1 after an error, which then is in
        ``/dev/termination-log`` too.
    """
    argv = sys.argv[1:] if argv is None else argv
    # What is forked from a process that has loaded this module may be any program of a machine's Pods.
    if Path(sys.argv[0]).name == tail.PROGRAM:
        return tail.main(argv)
    if Path(sys.argv[0]).name == hooks.SHIM:
        return hooks.become_shim(argv)
    if argv[:1] == [attachment.NAME]:
        return attachment.main(argv[1:])
    if argv[:1] == [PROVISION]:
        # Its Pod's claims are bound
        return 0
    # It handles signals in libvirt's event loop.
    return _command().run(_run, argv, signals=False)


def _run(options: argparse.Namespace) -> int:
    try:
        return Launcher(
            Delivery(options.namespace, options.name, options.uid),
            options.grace_period_seconds,
            options.capability_cache,
            image_volumes=options.image_volume,
            console_log=(paths.serial_log(options.uid), paths.SERIAL_LOG_PIPE) if options.log_serial_console else None,
            hook_sidecars=options.hook_sidecars,
        ).run()
    except LaunchError as error:
        message = str(error)
    except Exception as error:
        log.exception("the launcher failed")
        # Not its repr(): that of a UnicodeError holds the whole text, which may be user data.
        message = f"virt-launcher failed: {type(error).__name__}: {error}"
    log.error("%s", message)
    termination.leave(message)
    return 1


def prepare(cache_dir: str) -> None:
    """Warm libvirt's capability cache in *cache_dir*, once per node; see :func:`libvirtd.warm_capability_cache`.

    :raises RuntimeError: if that isn't possible; launchers work without it, each starts a second and a half later.
    """
    libvirt.registerErrorHandler(ignore_libvirt_error, None)
    try:
        warm_capability_cache(Path(cache_dir))
    except (LaunchError, LibvirtdError, OSError, libvirt.libvirtError) as error:
        raise RuntimeError(f"libvirt's capability cache can't be warmed: {error}") from error


def _command() -> Command:
    command = Command("virt-launcher", "Runs one virtual machine in its Pod.")
    parser = command.parser
    parser.add_argument("--name", required=True, help="name of the VirtualMachineInstance")
    parser.add_argument("--uid", required=True, help="its uid")
    parser.add_argument("--namespace", required=True, help="its namespace")
    for option, directory in (
        ("--kubevirt-share-dir", paths.PUBLIC_DIR),
        ("--ephemeral-disk-dir", paths.EPHEMERAL_DISKS_DIR),
    ):
        parser.add_argument(
            option,
            default=str(directory),
            choices=[str(directory)],
            help="as in KubeVirt; only this value is supported",
        )
    parser.add_argument(
        "--grace-period-seconds", type=int, default=30, help="seconds from SIGTERM until the VM is powered off"
    )
    parser.add_argument(
        "--capability-cache",
        type=Path,
        default=CAPABILITY_CACHE,
        help="libvirt's warmed capability cache, if there is one",
    )
    parser.add_argument(
        "--image-volume", action="store_true", help="container disks are already mounted, as image volumes"
    )
    parser.add_argument(
        "--log-serial-console",
        action="store_true",
        help="hand the serial console's output to the container guest-console-log",
    )
    parser.add_argument("--hook-sidecars", type=int, default=0, help="number of hook sidecars")
    return command
