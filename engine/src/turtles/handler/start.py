# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts guests: connects the Pod's network, makes its folders and devices ready, defines and starts the domain."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi import interfaces
from turtles.api.objects import Object
from turtles.domain import decision, definition, end, network, paths
from turtles.domain.network import InterfacePlan
from turtles.handler import capability_cache, hooks, pod_network
from turtles.handler.domain import Domain, is_hopeless
from turtles.handler.errors import GuestEnded, LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.processors import numa_nodes

log = logging.getLogger(__name__)

#: Sockets of passt for all ports of TCP and UDP, and for connections.
_FILES_OF_ALL_PORTS = 1 << 18


class Starter:
    """Starts the guests of one node."""

    def __init__(
        self, emulator: str, capability_cache: Path | None, configuration: Callable[[], ClusterConfiguration]
    ) -> None:
        """Create it.

        :param emulator: path of QEMU in the launcher.
        :param capability_cache: what a probe of this node found out about QEMU, for launchers that don't know it.
        :param configuration: gives what the installation chooses for machines that start now.
        """
        self._emulator = emulator
        self._capability_cache = capability_cache
        self._configuration = configuration

    def start(self, vmi: Object, guest: Guest, launcher: Launcher, absent: frozenset[str] = frozenset()) -> Domain:
        """Start a guest. Whatever an earlier attempt has left is used or replaced.

        :param absent: volumes that come later.
        :raises GuestEnded: if no other attempt would be any better.
        """
        began = time.monotonic()
        if began - guest.first_attempt > decision.START_LIMIT:
            raise GuestEnded(end.start_timed_out(decision.START_LIMIT, guest.error))
        guest.state.stopped = None
        plans = self.prepare(vmi, guest, launcher)
        prepared = time.monotonic()
        host = self.host(vmi, launcher, absent)
        xml = hooks.changed(vmi, guest, launcher, self._domain_xml(vmi, plans, host))
        try:
            domain = launcher.connection().start(xml, paused=vmi["spec"].get("startStrategy") == "Paused")
        except LibvirtError as error:
            if is_hopeless(error):
                raise GuestEnded(end.start_refused(error)) from error
            raise
        self._schedule(vmi, launcher)
        log.info(
            "guest started",
            extra={
                "vmi": str(guest),
                "uid": guest.uid,
                "prepare_ms": round((prepared - began) * 1000),
                "start_ms": round((time.monotonic() - prepared) * 1000),
            },
        )
        return domain

    def prepare(self, vmi: Object, guest: Guest, launcher: Launcher) -> tuple[InterfacePlan, ...]:
        """Make a launcher ready for its guest, whether that starts here or comes from elsewhere; return its interfaces.

        :raises GuestEnded: if the guest can't be connected, or its disks can't be used.
        """
        plans = pod_network.connect(vmi, guest, launcher)
        for plan in plans:
            if plan.binding == network.PASST:
                _allow_passt(plan, launcher)
        launcher.files.make_private_dir(guest.uid)
        launcher.devices.own(paths.block_volumes(vmi))
        for volume in _host_disks(vmi):
            launcher.disks.own_host_disk(volume)
        self._allow_locked_memory(vmi, launcher)
        self._bring_capability_cache(guest, launcher)
        return plans

    @staticmethod
    def _allow_locked_memory(vmi: Object, launcher: Launcher) -> None:
        amount = definition.locked_memory(vmi["spec"])
        if not amount:
            return
        try:
            launcher.process.allow_locked_memory(amount)
        except OSError as error:
            why = ValueError(f"can't allow its Pod to lock {amount} bytes of memory: {error}")
            raise GuestEnded(end.domain_not_supported(why)) from error

    @staticmethod
    def _schedule(vmi: Object, launcher: Launcher) -> None:
        vcpus = definition.realtime_vcpus(vmi["spec"])
        if not vcpus:
            return
        try:
            launcher.process.schedule_in_real_time(vcpus)
        except OSError as error:
            why = ValueError(f"cpu.realtime: the node doesn't schedule processors in real time: {error}")
            raise GuestEnded(end.domain_not_supported(why)) from error

    def _bring_capability_cache(self, guest: Guest, launcher: Launcher) -> None:
        if self._capability_cache is None:
            return
        try:
            capability_cache.bring(self._capability_cache, launcher.files, kvm=launcher.devices.has_kvm())
        except OSError as error:
            log.info("libvirtd determines QEMU's capabilities again: %s", error, extra={"vmi": str(guest)})

    def host(self, vmi: Object, launcher: Launcher, absent: frozenset[str] = frozenset()) -> definition.Host:
        """Return what the node offers a domain.

        :param absent: volumes that come later.
        """
        dedicated = bool((vmi["spec"]["domain"].get("cpu") or {}).get("dedicatedCpuPlacement"))
        return definition.Host(
            launcher.devices.has_kvm(),
            self._emulator,
            _volumes_without_direct_io(vmi, launcher),
            self._configuration(),
            block_sizes=_block_sizes(vmi, launcher),
            processors=launcher.process.processors() if dedicated else (),
            numa=numa_nodes() if dedicated else {},
            absent=absent,
            assigned=launcher.devices.assigned() if _has_assigned_devices(vmi) or _has_functions(vmi) else {},
            network_info=launcher.files.network_info() if _has_functions(vmi) else {},
            logs_console=launcher.files.has_file(paths.serial_log(vmi["metadata"]["uid"])),
        )

    @staticmethod
    def _domain_xml(vmi: Object, plans: tuple[InterfacePlan, ...], host: definition.Host) -> str:
        try:
            return definition.domain_xml(vmi, plans, host)
        except ValueError as error:
            raise GuestEnded(end.domain_not_supported(error)) from error


def _allow_passt(plan: InterfacePlan, launcher: Launcher) -> None:
    """Check that the Pod's libvirt can start passt (Debian 12's is built without it), and have it listen for the guest.

    :raises GuestEnded: it can't.
    """
    version = launcher.connection().version()
    if version < network.LIBVIRT_WITH_PASST:
        raise GuestEnded(end.no_passt(version, network.LIBVIRT_WITH_PASST))
    if plan.ports:
        return
    try:
        launcher.process.allow_open_files(_FILES_OF_ALL_PORTS)
    except OSError as error:
        why = ValueError(
            f"interface {plan.name!r}: passt needs {_FILES_OF_ALL_PORTS} open files for all ports, which its Pod can't "
            f"be allowed: {error}; name those that are used in its ports"
        )
        raise GuestEnded(end.network_not_supported(why)) from error


def _host_disks(vmi: Object) -> list[Object]:
    return [volume for volume in vmi["spec"].get("volumes") or () if "hostDisk" in volume]


def _has_assigned_devices(vmi: Object) -> bool:
    devices = (vmi["spec"].get("domain") or {}).get("devices") or {}
    return bool(devices.get("gpus") or devices.get("hostDevices"))


def _has_functions(vmi: Object) -> bool:
    return any(each.get("sriov") is not None for each in interfaces.of(vmi["spec"]).values())


def _volumes_without_direct_io(vmi: Object, launcher: Launcher) -> frozenset[str]:
    block = paths.block_volumes(vmi)
    return frozenset(
        volume["name"]
        for volume in vmi["spec"].get("volumes") or ()
        if volume["name"] not in block
        and any(source in volume for source in ("persistentVolumeClaim", "dataVolume", "hostDisk"))
        and not launcher.disks.bypasses_page_cache(paths.disk_source(volume)[0])
    )


def _block_sizes(vmi: Object, launcher: Launcher) -> dict[str, tuple[int, int]]:
    """Return the sizes of the blocks of those volumes whose disks are to have the same."""
    block = paths.block_volumes(vmi)
    volumes = {volume["name"]: volume for volume in vmi["spec"].get("volumes") or ()}
    by_name = {}
    for disk in vmi["spec"]["domain"]["devices"].get("disks") or ():
        name = disk["name"]
        if definition.matches_volume(disk) and name in volumes:
            device = paths.claim_device(name) if name in block else None
            if sizes := launcher.disks.block_sizes(device or paths.disk_source(volumes[name])[0]):
                by_name[name] = sizes
    return by_name
