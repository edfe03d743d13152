# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a domain of a Pod's libvirtd, over a connection (`handler/connection.py`).

The libvirtd isn't trusted: each call has a deadline, and texts that come from it are bounded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

import libvirt
import libvirt_qemu

from turtles.handler.errors import LibvirtError

T = TypeVar("T")

#: Seconds for one call that takes libvirt milliseconds. Machines are busy.
CALL = 10.0
#: libvirt waits up to 30 s for another job on the domain, and half a minute for a QEMU that writes to a slow disk.
SHUT_DOWN = 40.0
#: As long as a terabyte may take on slow storage.
DUMP = 6 * 3600.0
#: QEMU opens the disk's file, which may be on a network; a drive's tray takes its time.
ATTACH = 30.0
DESTROY = 45.0
#: Longer than any migration takes; how long one may is decided elsewhere.
MIGRATE = 7 * 24 * 3600.0
#: Seconds a guest agent may take for one answer; libvirt sees to it. The guest's information takes several.
AGENT = 5
_AGENT_INFO = 20.0
#: Seconds that it may take to freeze file systems: what is to be written is written first.
FREEZE = 60
#: Characters of a guest agent's answer that are looked at.
MAX_ANSWER = 256 * 1024
#: Errors of libvirt that another attempt won't cure.
_HOPELESS = frozenset(
    {
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_CPU_INCOMPATIBLE,
    }
)
#: How a running domain may be undefined: with everything libvirt keeps about it, the variables of EFI or not.
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)
_WITH_VARIABLES, _WITHOUT_VARIABLES = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM, libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
_STATISTICS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


def is_hopeless(error: LibvirtError) -> bool:
    """Whether another attempt won't cure an error."""
    return error.code in _HOPELESS


@dataclass(frozen=True)
class Way:
    """How a guest gets to another node.

    :param libvirtd: socket in the launcher that leads to the target's libvirtd. :param memory: and for the guest's
        memory, where the target's QEMU listens at the same path. :param disks: likewise for the disks that are copied.
    :param copied_disks: their names, such as vda. :param bandwidth: bytes per second, 0 is no limit.
    :param connections: for memory, beside the one for all else; 0 if that is for memory, too.
    """

    libvirtd: PurePosixPath
    memory: PurePosixPath
    disks: PurePosixPath
    copied_disks: Sequence[str] = ()
    bandwidth: int = 0
    auto_converge: bool = False
    post_copy: bool = False
    connections: int = 0


class Call(Protocol):
    """Calls libvirt, as `Connection.call` does."""

    def __call__(self, what: str, seconds: float, function: Callable[[], T], /) -> T:
        """Return what the function returns."""


class Domain:
    """A domain of a Pod's libvirtd.

    :raises LauncherBusy: from every method, if libvirtd doesn't answer in time or the connection is broken.
    :raises LibvirtError: from every method, if libvirtd refuses.
    """

    def __init__(self, call: Call, domain: "libvirt.virDomain") -> None:
        self._call, self._domain = call, domain

    def state(self) -> tuple[int, int]:
        """Return the domain's state and the reason for it (``virDomainState``)."""
        state, reason = self._call("the domain's state", CALL, self._domain.state)
        return int(state), int(reason)

    def xml(self) -> str:
        """Return the domain's XML. That it is some is not certain."""
        text: str = self._call("the domain's XML", CALL, self._domain.XMLDesc)
        return text

    def statistics(self) -> dict[str, Any]:
        """Return the domain's statistics. What would have to wait for another job is left out."""

        def ask() -> dict[str, Any]:
            records = self._domain.connect().domainListGetStats([self._domain], _STATISTICS, _NOWAIT)
            return dict(records[0][1]) if records else {}

        return self._call("the domain's statistics", CALL, ask)

    def set_vcpus(self, count: int) -> None:
        """Give the running guest as many virtual processors."""
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._call("the guest's processors", CALL, lambda: self._domain.setVcpusFlags(count, flags))

    def request_memory(self, xml: str) -> None:
        """Change how much memory a device is to give the running guest.

        :param xml: the device with the amount that is requested.
        """
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._call("the guest's memory", CALL, lambda: self._domain.updateDeviceFlags(xml, flags))

    def set_link(self, xml: str) -> None:
        """Change the link of an interface of the running guest.

        :param xml: the interface as it is to be.
        """
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._call("the guest's link", CALL, lambda: self._domain.updateDeviceFlags(xml, flags))

    def attach(self, xml: str) -> None:
        """Give the running guest a device."""
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._call("a new device", ATTACH, lambda: self._domain.attachDeviceFlags(xml, flags))

    def detach(self, alias: str) -> None:
        """Ask the running guest to release a device. When it has, there is an event."""
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._call("the removal of a device", ATTACH, lambda: self._domain.detachDeviceAlias(alias, flags))

    def change_medium(self, xml: str) -> None:
        """Change the medium in a drive of the running guest; without one it is empty.

        :param xml: the drive, with the new medium.
        """
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
        self._call("the medium of a drive", ATTACH, lambda: self._domain.updateDeviceFlags(xml, flags))

    def dump_memory(self, path: str) -> None:
        """Write the guest's memory to a file in the launcher (ELF core). The guest stands still meanwhile."""
        flags, form = libvirt.VIR_DUMP_MEMORY_ONLY, libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW
        self._call("the dump of the memory", DUMP, lambda: self._domain.coreDumpWithFormat(path, form, flags))

    def shut_down(self) -> None:
        """Press the guest's power button."""
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        self._call("the guest's power button", SHUT_DOWN, lambda: self._domain.shutdownFlags(flags))

    def wake_up(self) -> None:
        """Wake a guest that has suspended itself to memory."""
        self._call("the guest's wake-up", CALL, lambda: self._domain.pMWakeup(0))

    def pause(self) -> None:
        """Stop the guest's processors."""
        self._call("the guest's pause", CALL, self._domain.suspend)

    def unpause(self) -> None:
        """Let the guest's processors go on."""
        self._call("the end of the guest's pause", CALL, self._domain.resume)

    def launch_measurement(self) -> dict[str, Any]:
        """Return what was measured at the launch of an encrypted guest, by libvirt's names."""
        found: dict[str, Any] = self._call("the launch's measurement", CALL, self._domain.launchSecurityInfo)
        return found

    def inject_secret(self, header: str, secret: str) -> None:
        """Put a secret into the memory of an encrypted guest that doesn't run yet."""
        parameters = {
            libvirt.VIR_DOMAIN_LAUNCH_SECURITY_SEV_SECRET_HEADER: header,
            libvirt.VIR_DOMAIN_LAUNCH_SECURITY_SEV_SECRET: secret,
        }
        self._call("the secret's injection", CALL, lambda: self._domain.setLaunchSecurityState(parameters))

    def reboot(self, *, by_agent: bool) -> None:
        """Ask the guest to shut down, and start it again once it has.

        :param by_agent: its agent is asked, not its power button.
        """
        flag = libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT if by_agent else libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
        self._call("the guest's reboot", SHUT_DOWN, lambda: self._domain.reboot(flag))

    def reset(self) -> None:
        """Press the guest's reset button."""
        self._call("the guest's reset button", CALL, lambda: self._domain.reset(0))

    def freeze(self) -> None:
        """Have the guest agent freeze all file systems; what is written already is on the disks then."""
        self._freezing(self._domain.fsFreeze)

    def thaw(self) -> None:
        """Have the guest agent thaw all file systems."""
        self._freezing(self._domain.fsThaw)

    def _freezing(self, function: Callable[[], int]) -> None:
        self._call("the guest agent's time limit", CALL, lambda: self._domain.agentSetResponseTimeout(FREEZE))
        self._call("the guest agent", FREEZE + CALL, function)

    def destroy(self) -> None:
        """End the domain at once; one that has just ended by itself is as good."""
        try:
            self._call("the domain's end", DESTROY, self._domain.destroy)
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_OPERATION_INVALID:
                raise

    def remove(self, *, keep_variables: bool = False) -> None:
        """End the domain if it runs, and undefine it.

        :param keep_variables: those of its firmware stay.
        """
        # Not asked first whether it runs: it might by the time the answer is here
        self.destroy()
        flags = _UNDEFINE | (_WITHOUT_VARIABLES if keep_variables else _WITH_VARIABLES)
        self._call("the domain's removal", CALL, lambda: self._domain.undefineFlags(flags))

    def migrate(self, way: "Way") -> None:
        """Migrate the guest, and return when it runs at its target. The domain stays defined here.

        :raises LibvirtError: if it failed or was aborted: the guest runs on here.
        """
        parameters: dict[str, Any] = {
            libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{way.memory}",
        }
        # What libvirt demands of caches and file systems is checked already: claims are shared, Kubernetes says, and
        # what writes to them leaves the page cache out. libvirt only knows some file systems by name.
        flags = (
            libvirt.VIR_MIGRATE_LIVE
            | libvirt.VIR_MIGRATE_PEER2PEER
            | libvirt.VIR_MIGRATE_PERSIST_DEST
            | libvirt.VIR_MIGRATE_UNSAFE
        )
        if way.copied_disks:
            parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{way.disks}"
            parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = list(way.copied_disks)
            flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC
        if way.bandwidth:
            # In MiB per second, of which there is at least one
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, way.bandwidth >> 20)
        if way.auto_converge:
            flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
        if way.post_copy:
            flags |= libvirt.VIR_MIGRATE_POSTCOPY
        if way.connections:
            flags |= libvirt.VIR_MIGRATE_PARALLEL
            parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = way.connections
        uri = f"qemu+unix:///session?socket={way.libvirtd}"
        self._call("the migration", MIGRATE, lambda: self._domain.migrateToURI3(uri, parameters, flags))

    def limit_downtime(self, milliseconds: int) -> None:
        """Set how long the guest may stand still at the end of a migration."""
        self._call("the longest downtime", CALL, lambda: self._domain.migrateSetMaxDowntime(milliseconds))

    def job(self) -> dict[str, Any]:
        """Return the statistics of the job that is under way; empty if there is none."""
        job: dict[str, Any] = self._call("the migration's progress", CALL, self._domain.jobStats)
        return job if job.get("type") else {}

    def abort_job(self) -> None:
        """Abort the job that is under way; none is as good."""
        try:
            self._call("the migration's end", CALL, self._domain.abortJob)
        except LibvirtError as error:
            if error.code != libvirt.VIR_ERR_OPERATION_INVALID:
                raise

    def start_post_copy(self) -> None:
        """Have a migrating guest run at its target before all of its memory is there."""
        self._call("the switch to post-copy", CALL, self._domain.migrateStartPostCopy)

    def ask_agent(self, command: str) -> str:
        """Execute a command (JSON) in the guest agent and return its answer."""
        self._call("the guest agent's time limit", CALL, lambda: self._domain.agentSetResponseTimeout(AGENT))
        answer: str = self._call(
            "the guest agent", AGENT + CALL, lambda: libvirt_qemu.qemuAgentCommand(self._domain, command, AGENT, 0)
        )
        if len(answer) > MAX_ANSWER:
            raise LibvirtError(
                f"the guest agent's answer has {len(answer)} characters, but at most {MAX_ANSWER} are accepted"
            )
        return answer

    def disk_size(self, target: str) -> int:
        """Return the size of a disk in bytes, by its device name in the guest."""
        capacity, _, _ = self._call("the size of a disk", CALL, lambda: self._domain.blockInfo(target))
        return int(capacity)

    def resize_disk(self, target: str, size: int) -> None:
        """Change the size of a disk, in bytes; the guest learns of it."""
        flags = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        self._call("the resize of a disk", CALL, lambda: self._domain.blockResize(target, size, flags))

    def guest_info(self) -> dict[str, Any]:
        """Return what the guest agent knows about the guest's operating system and interfaces."""
        kinds = libvirt.VIR_DOMAIN_GUEST_INFO_OS | libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES
        info: dict[str, Any] = self._call("the guest agent", _AGENT_INFO, lambda: self._domain.guestInfo(kinds))
        return info
