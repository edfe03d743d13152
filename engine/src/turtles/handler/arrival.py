# SPDX-License-Identifier: GPL-3.0-or-later
"""The target's side of live migrations: makes a launcher of this node ready for a guest from another one.

Network, devices and disks are made as for a start; then the source is told where to send the guest, and libvirt starts
QEMU to receive it. When the guest runs here the source hands it over, and it is synchronised like any other.
"""

import logging
import socket
from collections.abc import Callable

from turtles.api import migrations, times
from turtles.api.node_server import Endpoint
from turtles.api.objects import Object
from turtles.domain import lifecycle, migration, paths
from turtles.handler import delivery, migration_proxy
from turtles.handler.checksums import Checksums
from turtles.handler.cluster import Cluster
from turtles.handler.errors import GuestEnded, LauncherNotReady, LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.migration_proxy import MigrationProxy
from turtles.handler.peer import StrangerError
from turtles.handler.plumbing import PlumbingError
from turtles.handler.start import Starter

log = logging.getLogger(__name__)

#: Seconds after which it is looked again, whatever was or wasn't told.
_AGAIN = 2.0


class Arrivals:
    """The guests that come to this node."""

    def __init__(
        self, cluster: Cluster, starter: Starter, pods_dir: str, proxy: MigrationProxy, find: Callable[[str], Endpoint]
    ) -> None:
        """Create it.

        :param pods_dir: the kubelet's (or podrunner's) folder of Pods.
        :param find: returns where the virt-handler of a node takes guests. Raises LookupError.
        """
        self._cluster, self._starter, self._pods_dir = cluster, starter, pods_dir
        self._proxy, self._find = proxy, find
        self._checksums = Checksums()
        #: Migrations by which guests may come, by the guests' uids.
        self._expected: dict[str, str] = {}

    def follow(self, vmi: Object, guest: Guest, launcher: Launcher) -> float:
        """Bring the arrival of a guest forward; return when to look again."""
        try:
            self._prepare(vmi, guest, launcher)
        except LauncherNotReady as error:
            log.debug("the target's launcher is not ready: %s", error, extra={"vmi": str(guest)})
        except (LibvirtError, PlumbingError, LookupError, ValueError, OSError, GuestEnded) as error:
            if guest.error != str(error):
                guest.error = str(error)
                message = f"this node can't be prepared for the guest: {error} (retrying)"
                self._cluster.event(vmi, "Warning", "PreparingTargetFailed", message)
        return _AGAIN

    def _prepare(self, vmi: Object, guest: Guest, launcher: Launcher) -> None:
        state = migrations.state_of(vmi)
        if guest.delivered != launcher.pod_uid:
            delivery.deliver(self._pods_dir, launcher.pod_uid, vmi)
            guest.delivered = launcher.pod_uid
        domain = launcher.domain(guest.domain_name)
        if domain is not None:
            self._tell_arrival(vmi, guest, *domain.state())
        if self._proxy.is_expected(state["migrationUid"]):
            return
        if not self._has_same_disks(vmi, guest, launcher):
            return
        if domain is None:
            self._starter.prepare(vmi, guest, launcher)
            launcher.files.make_migration_folder()
        self.forget(guest)
        self._proxy.expect(
            state["migrationUid"], self._find(state["sourceNode"]), lambda channel: _connect(launcher, channel)
        )
        self._expected[guest.uid] = state["migrationUid"]
        here = self._proxy.endpoint
        self._cluster.patch(vmi, {"migrationState": migration.announced(here.host, here.port)})
        self._cluster.event(vmi, "Normal", "PreparingTarget", "VirtualMachineInstance Migration Target Prepared.")

    def _has_same_disks(self, vmi: Object, guest: Guest, launcher: Launcher) -> bool:
        """Say whether the images here are those at the source, once that is known: only what was written is copied.

        :raises ValueError: they aren't.
        """
        entries = {entry["name"]: entry for entry in vmi["status"].get("volumeStatus") or ()}
        known = {
            name: entry["containerDiskVolume"]["checksum"]
            for name, entry in entries.items()
            if (entry.get("containerDiskVolume") or {}).get("checksum")
        }
        blank = {**vmi, "status": {**vmi["status"], "volumeStatus": []}}
        self._checksums.compute(blank, guest, launcher, lambda: self._cluster.enqueue(guest.key))
        for name, checksum in known.items():
            if name not in guest.checksums:
                return False
            if guest.checksums[name] != checksum:
                raise ValueError(
                    f"volume {name!r}: its image differs from the one the guest was started with; reference images "
                    "by digest, or restart the machine"
                )
        return True

    def _tell_arrival(self, vmi: Object, guest: Guest, state: int, reason: int) -> None:
        """Tell that the guest runs here, whatever becomes of its source."""
        ready_since = migrations.state_of(vmi).get("targetNodeDomainReadyTimestamp")
        arriving = state == lifecycle.State.PAUSED and reason in (
            lifecycle.Paused.MIGRATION,
            lifecycle.Paused.STARTING_UP,
        )
        if not ready_since and lifecycle.alive(state) and not arriving:
            guest.state.started = True
            guest.save()
            self._cluster.patch(vmi, {"migrationState": {"targetNodeDomainReadyTimestamp": times.now()}})

    def forget(self, guest: Guest) -> None:
        """Let a guest come no more: it is here, or it won't."""
        if (uid := self._expected.pop(guest.uid, None)) is not None:
            self._proxy.forget(uid)


def _connect(launcher: Launcher, channel: str) -> socket.socket:
    """Connect to where a channel leads in a launcher."""
    if channel == migration_proxy.LIBVIRTD:
        try:
            return launcher.connect_to_libvirtd()
        except StrangerError as error:
            raise PermissionError(str(error)) from error
    return launcher.connect(paths.MIGRATION_MEMORY if channel == migration_proxy.MEMORY else paths.MIGRATION_DISKS)
