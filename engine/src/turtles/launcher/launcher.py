# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher itself: prepares the disks, runs libvirtd, and watches over both until the domain is undefined.

One thread, one event loop: libvirt's own, in which signals, the end of libvirtd, DHCP packets and timers are handled
as well.
"""

import logging
import signal
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any

import libvirt

from turtles.domain import lifecycle, paths
from turtles.launcher import (
    boot,
    container_disk,
    disks,
    filesystems,
    metrics,
    process,
)
from turtles.launcher.addressing import Addressing
from turtles.launcher.console_log import ConsoleLog
from turtles.launcher.delivery import Delivery
from turtles.launcher.hooks import Hooks
from turtles.launcher.libvirtd import Libvirtd
from turtles.launcher.loop import after, every, initialize, on_signals, step
from turtles.launcher.metrics_port import MetricsPort
from turtles.launcher.supervisor import Supervisor
from turtles.launcher.waits import wait_for_container_disks, wait_for_vmi
from turtles.log import about

log = logging.getLogger(__name__)

#: Between two presses of the guest's power button.
_ACPI_SECONDS = 10
#: How long the node agent has, after the VM has stopped, to store the VM's final state and undefine the domain.
_UNDEFINE_SECONDS = 5
#: How long libvirtd has to answer the call that undefined the domain, before it is ended.
_ANSWER_SECONDS = 0.2
_CHANGES = (
    libvirt.VIR_DOMAIN_EVENT_DEFINED,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED,
    libvirt.VIR_DOMAIN_EVENT_STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED,
)


def ignore_libvirt_error(context: object, error: object) -> None:
    """Keep libvirt from printing errors: each comes as an exception as well."""


class Launcher:
    """A VM's launcher.

    :param delivery: brings the VMI.
    :param grace_period: seconds the guest has to shut down after SIGTERM.
    :param capability_cache: folder filled by :func:`prepare`, may be missing.
    :param image_volumes: container disks are mounted already; else their images run as containers, whose files the
        node agent has to mount.
    :param console_log: file to which QEMU writes what comes from the serial console, and pipe that a container reads;
        None if nothing is logged.
    :param hook_sidecars: how many containers of the Pod change what the machine is made of.
    """

    def __init__(
        self,
        delivery: Delivery,
        grace_period: int,
        capability_cache: Path,
        *,
        image_volumes: bool = False,
        console_log: tuple[PurePosixPath, PurePosixPath] | None = None,
        hook_sidecars: int = 0,
    ) -> None:
        self._delivery = delivery
        self._vmi: dict[str, Any] = {}
        self._grace_period = grace_period
        self._image_volumes = image_volumes
        self._console_log = console_log
        self._hooks = Hooks(hook_sidecars) if hook_sidecars else None
        self._addressing: Addressing | None = None
        self._metrics_port: MetricsPort | None = None
        socket = Path(paths.LIBVIRT_SOCKET)
        self._supervisor = Supervisor(
            Libvirtd(Path(paths.PRIVATE_DIR) / "libvirt", socket.with_name(f".{socket.name}"), capability_cache),
            socket,
            self._on_lifecycle,
            self._look_again,
        )
        self._request: container_disk.Request | None = None
        self._exit_status: int | None = None
        self._domain_seen = False
        self._domain_changed = False
        self._undefined_at: float | None = None
        # Set by SIGTERM: until when the guest may take, when to press the power button next, when it had stopped.
        self._deadline: float | None = None
        self._next_press = 0.0
        self._stopped_at: float | None = None

    def run(self) -> int:
        """Prepare, supervise, and return the exit status.

        :raises LaunchError: if the VM can't be started in this Pod.
        """
        process.become_reaper()
        libvirt.registerErrorHandler(ignore_libvirt_error, None)
        initialize()
        on_signals((signal.SIGTERM, signal.SIGINT), self._on_signal)
        process.drop_capabilities()
        # libvirtd starts while the VMI is on its way and the disks are prepared.
        self._supervisor.start()
        try:
            if self._console_log is not None:
                ConsoleLog(*map(Path, self._console_log)).start()
            vmi = wait_for_vmi(self._delivery, self._is_ending)
            if vmi is None:
                return 0
            self._vmi = vmi
            self._note("VMI arrived")
            self._addressing = Addressing(self._vmi)
            Path(paths.domain_private_dir(self._vmi["metadata"]["uid"])).mkdir(parents=True, exist_ok=True)
            volumes = [] if self._image_volumes else container_disk.volumes(self._vmi["spec"])
            if volumes:
                # Kept: the containers of the images live as long as its connections to them.
                self._request = container_disk.Request(volumes)
                if not wait_for_container_disks(self._request, self._is_ending):
                    return 0
            boot.prepare(self._vmi)
            if self._hooks is not None:
                self._hooks.listen()
            disks.prepare(self._vmi, hook=self._hooked if self._hooks else None)
            self._keep_metrics()
            filesystems.start(self._vmi)
            self._note("disks ready")
            self._supervisor.connect()
            self._supervisor.publish()
            return self._supervise()
        finally:
            self._supervisor.kill()
            if self._hooks is not None:
                self._hooks.shut_down()

    def _hooked(self, data: dict[str, Any]) -> Mapping[str, Any]:
        assert self._hooks is not None
        return self._hooks.pre_cloud_init_iso(self._vmi, data)

    def _keep_metrics(self) -> None:
        """Renew what is on the disks with metrics while the VM runs, and answer the guest where it asks for them."""
        if (self._vmi["spec"]["domain"].get("devices") or {}).get("downwardMetrics") is not None:
            socket = Path(paths.downward_metrics_socket(self._vmi["metadata"]["uid"]))
            self._metrics_port = MetricsPort(socket, self._vmi)
        for volume in disks.backing_volumes(self._vmi["spec"]):
            if "downwardMetrics" in volume:
                disk = metrics.MetricsDisk(Path(paths.metrics_disk(volume["name"])), self._vmi)
                every(metrics.INTERVAL_SECONDS, disk.renew)

    def _note(self, message: str) -> None:
        """Log how far it has come."""
        log.info(message, extra=about("vmi", self._vmi))

    def _is_ending(self) -> bool:
        return self._deadline is not None

    def _supervise(self) -> int:
        """Handle events until it is time to end; return the exit status."""
        self._note("ready for the domain")
        # The launcher isn't told of what happened before it listened.
        self._domain_changed = True
        while self._exit_status is None:
            if self._domain_changed:
                self._domain_changed = False
                self._follow_domain()
            else:
                step()
        return self._exit_status

    def _finish(self, reason: str) -> None:
        log.info("ending: %s", reason)
        self._exit_status = 0

    def _on_signal(self) -> None:
        if self._deadline is None:
            log.info("asked to end", extra={"grace_period_seconds": self._grace_period})
            self._deadline = monotonic() + self._grace_period
            self._domain_changed = True

    # The domain

    def _on_lifecycle(
        self, connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, opaque: object
    ) -> None:
        if event in _CHANGES:
            self._domain_changed = True

    def _follow_domain(self) -> None:
        """Act on the domain's state: end when it is gone, and bring it down after SIGTERM."""
        try:
            active, defined = self._domains()
        except libvirt.libvirtError as error:
            log.warning("libvirtd doesn't answer about the domain", extra={"error": str(error)})
            after(1, self._look_again)
            self._supervisor.check()
            return
        if active or defined:
            self._domain_seen = True
            self._undefined_at = None
            if self._addressing is not None:
                self._addressing.open()
            if self._metrics_port is not None:
                self._metrics_port.open()
        elif self._supervisor.connection is not None and self._domain_seen:
            # The node agent is still waiting for the answer to its call; and it may define the domain again.
            now = monotonic()
            self._undefined_at = self._undefined_at or now
            self._finish_or_wait(self._undefined_at + _ANSWER_SECONDS, now, "the domain is undefined")
            return
        if self._deadline is None:
            return
        now = monotonic()
        if active:
            self._bring_down(active, now)
        elif self._supervisor.connection is None:
            # Nobody to ask. The VM ends with this process, at the latest when the time is over.
            self._finish_or_wait(self._deadline, now, "libvirtd didn't come back in time")
        elif not defined:
            self._finish("there is no domain")
        else:
            self._stopped_at = self._stopped_at or now
            self._finish_or_wait(self._stopped_at + _UNDEFINE_SECONDS, now, "the domain has stopped")

    def _domains(self) -> tuple[list[libvirt.virDomain], list[libvirt.virDomain]]:
        """Return the running and the merely defined domains; none while there is no connection."""
        active: list[libvirt.virDomain] = []
        defined: list[libvirt.virDomain] = []
        connection = self._supervisor.connection
        for domain in connection.listAllDomains() if connection is not None else ():
            # Asked once each: one that starts or stops meanwhile must not be in neither list.
            try:
                (active if domain.isActive() else defined).append(domain)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
        return active, defined

    def _finish_or_wait(self, until: float, now: float, reason: str) -> None:
        if now >= until:
            self._finish(reason)
        else:
            after(until - now, self._look_again)

    def _bring_down(self, active: list[libvirt.virDomain], now: float) -> None:
        """Press the power button repeatedly; power off when the grace period is over, or if the guest is paused."""
        assert self._deadline is not None
        try:
            for domain in active:
                state, reason = domain.state()
                if now >= self._deadline:
                    log.warning("the guest didn't shut down in time, powering it off")
                    domain.destroy()
                elif lifecycle.is_frozen(state, reason):
                    log.warning("the guest is paused and can't shut down, powering it off")
                    domain.destroy()
                elif now >= self._next_press:
                    if lifecycle.is_asleep(state):
                        domain.pMWakeup(0)
                    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        except libvirt.libvirtError as error:
            log.warning("the domain can't be stopped", extra={"error": str(error)})
        if now >= self._next_press:
            self._next_press = now + _ACPI_SECONDS
        due = min(self._deadline, self._next_press) if now < self._deadline else now + 1
        after(due - now, self._look_again)

    def _look_again(self) -> None:
        self._domain_changed = True
