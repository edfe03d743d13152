# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes come to a running guest and leave it (KubeVirt user guide, "Hotplug Volumes").

The controller makes a Pod for each claim and writes its uid into the VMI's status. Here its mount is shown to the
launcher, and libvirt plugs the disk in; unplugging goes the other way round, and the guest has a say in it. What has
been done is read back from the launcher's mounts and from the domain, so that nothing has to be remembered.
"""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from turtles.api.kinds.vmi import hotplug
from turtles.api.objects import Object
from turtles.domain import definition, paths
from turtles.domain.definition import Host
from turtles.domain.device_requests import medium_request
from turtles.domain.live_domain import Live, read_live
from turtles.domain.volume_status import Plugged
from turtles.handler.domain import Domain
from turtles.handler.errors import LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.mounts import MountError
from turtles.handler.peer import StrangerError

log = logging.getLogger(__name__)

#: Seconds after which what failed is tried again, and a guest is asked again to release a disk.
_RETRY, _ASK_AGAIN = 10.0, 15.0
#: Seconds that a start waits for volumes whose Pods are on their way.
_START_PATIENCE = 60.0
#: Seconds after which a Pod that should be ready is looked at again, should a notification have been lost.
_LOOK = 2.0
_NO_CONTROLLER = "the machine has no controller for bus {bus}; restart it, or use another bus"
#: What to do about errors of libvirt and QEMU, by words in them.
_REMEDIES = {
    "No more available PCI slots": (
        "; the machine has no free port for another device: unplug one, use the bus scsi, or restart the machine"
    ),
    '"write" lock': "; a running machine already uses the claim: stop it, or remove the volume from it",
}


def entries_of(vmi: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the entries of a VMI's status.volumeStatus for volumes that come or go, by the volumes' names."""
    entries = (vmi.get("status") or {}).get("volumeStatus") or ()
    return {entry["name"]: entry for entry in entries if isinstance(entry.get("hotplugVolume"), dict)}


def mount(vmi: Object, guest: Guest, launcher: Launcher, on_change: Callable[[], None]) -> dict[str, Plugged]:
    """Show the launcher the claims that are ready, and return how far the volumes are."""
    wanted, plugged = hotplug.hotpluggable_volumes(vmi["spec"]), {}
    for name, entry in entries_of(vmi).items():
        mounted = launcher.claims.has(name)
        pod = PurePosixPath(entry["hotplugVolume"].get("attachPodUID") or "").name.strip(".")  # it becomes a path
        if name in wanted and not mounted and pod:
            mounted = _mount(guest, launcher, name, pod, on_change)
        plugged[name] = Plugged(mounted, guest.volume_failures.get(name, ""))
    for gone in guest.volume_failures.keys() - plugged.keys():
        del guest.volume_failures[gone]
    return plugged


def awaited(vmi: Object, volumes: Mapping[str, Plugged]) -> bool:
    """Say whether a guest shouldn't start yet: a claim is there, and its Pod on its way."""
    return any(
        entry.get("phase") in (hotplug.BOUND, hotplug.ATTACHED) and not volumes[name].mounted
        for name, entry in entries_of(vmi).items()
        if name in volumes
    )


def start_waits(guest: Guest) -> bool:
    """Say whether the start of a guest may still wait for its volumes."""
    return time.monotonic() - guest.first_attempt < _START_PATIENCE


def absent(vmi: Object, volumes: Mapping[str, Plugged]) -> frozenset[str]:
    """Return the volumes that a guest starts without."""
    names = hotplug.hotpluggable_volumes(vmi["spec"])
    return frozenset(name for name in names if name not in volumes or not volumes[name].mounted)


def plug(
    vmi: Object,
    guest: Guest,
    launcher: Launcher,
    domain: Domain,
    live: Live,
    volumes: Mapping[str, Plugged],
    host: Callable[[], Host],
) -> bool:
    """Plug volumes in and out as the VMI wants it; return whether there is something new to see.

    :param volumes: how far they are, as :func:`mount` has it. :param host: gives what the node offers the domain.
    """
    wanted = hotplug.hotpluggable_volumes(vmi["spec"])
    disks = {disk["name"]: disk for disk in vmi["spec"]["domain"]["devices"].get("disks") or ()}
    declared = {volume["name"] for volume in vmi["spec"].get("volumes") or ()}
    changed = False
    for name, volume in wanted.items():
        disk, there = disks.get(name), live.disks.get(name)
        if disk is None or "memoryDump" in volume or not (name in volumes and volumes[name].mounted):
            continue
        if there is not None and (there.loaded or not hotplug.is_cdrom(disk)):
            continue
        changed |= _attempt(guest, name, _RETRY, functools.partial(_insert, vmi, disk, domain, live, host))
    for name, there in live.disks.items():
        if name in declared or not there.loaded:
            continue
        if name in disks:
            changed |= _attempt(guest, name, _RETRY, functools.partial(_change_medium, domain, name, None))
        else:
            changed |= _attempt(guest, name, _ASK_AGAIN, functools.partial(domain.detach, f"ua-{name}"), repeat=True)
    for name, state in volumes.items():
        there = live.disks.get(name)
        if name not in wanted and state.mounted and (there is None or not there.loaded):
            changed |= _attempt(guest, name, _RETRY, functools.partial(launcher.claims.take, name))
    return changed


def next_look(vmi: Object, guest: Guest, volumes: Mapping[str, Plugged], otherwise: float) -> float:
    """Return after how many seconds to look again."""
    now, wanted = time.monotonic(), hotplug.hotpluggable_volumes(vmi["spec"])
    due = [moment - now for name, moment in guest.volume_retry.items() if name in volumes]
    for name, entry in entries_of(vmi).items():
        if name in wanted and entry["hotplugVolume"].get("attachPodUID") and not volumes[name].mounted:
            due.append(_LOOK)
    return max(0.1, min([otherwise, *due]))


def _mount(guest: Guest, launcher: Launcher, name: str, pod: str, on_change: Callable[[], None]) -> bool:
    try:
        launcher.claims.watch_attachment(pod, on_change)
        _attempt(guest, name, _LOOK, functools.partial(launcher.claims.bring, name, pod), quiet=FileNotFoundError)
    except FileNotFoundError:
        pass  # the Pod is going; another one comes, or isn't needed
    except OSError as error:
        _failed(guest, name, str(error))
    return launcher.claims.has(name)


def _attempt(
    guest: Guest,
    name: str,
    pause: float,
    act: Callable[[], object],
    *,
    repeat: bool = False,
    quiet: type[Exception] | tuple[()] = (),
) -> bool:
    """Do something for a volume, unless the last attempt was a moment ago; return whether it was done.

    :param pause: seconds until the next attempt. :param repeat: also after one that succeeded.
    :param quiet: an exception that means that it isn't possible yet.
    """
    if guest.volume_retry.get(name, 0.0) > time.monotonic():
        return False
    guest.volume_retry[name] = time.monotonic() + pause
    try:
        act()
    except quiet:
        guest.volume_retry.pop(name, None)
        return False
    except (LibvirtError, MountError, StrangerError, OSError, ValueError) as error:  # AnswerError is one
        return _failed(guest, name, str(error))
    guest.volume_failures.pop(name, None)
    if not repeat:
        guest.volume_retry.pop(name, None)
    return True


def _failed(guest: Guest, name: str, message: str) -> bool:
    """Note why something failed; return whether that is new."""
    message += next((remedy for words, remedy in _REMEDIES.items() if words in message), "")
    if guest.volume_failures.get(name) == message:
        return False
    guest.volume_failures[name] = message
    log.warning("volume %s: %s", name, message, extra={"vmi": str(guest), "uid": guest.uid})
    return True


def _insert(vmi: Object, disk: Mapping[str, Any], domain: Domain, live: Live, host: Callable[[], Host]) -> None:
    """Plug a disk in, or put a medium into a drive."""
    there, bus = live.disks.get(disk["name"]), definition.bus_of(disk)
    if there is not None:
        _change_medium(domain, disk["name"], str(paths.claim_disk(disk["name"])))
        return
    if bus == "scsi" and bus not in live.buses:
        raise ValueError(_NO_CONTROLLER.format(bus=bus))
    # Asked again: another one may have been plugged in a moment ago.
    target = definition.free_target(disk, read_live(domain.xml()).targets)
    domain.attach(definition.added_disk(vmi, disk, target, host()))
    log.info("disk plugged in", extra={"vmi": vmi["metadata"]["name"], "disk": disk["name"], "target": target})


def _change_medium(domain: Domain, name: str, path: str | None) -> None:
    domain.change_medium(medium_request(domain.xml(), name, path))
