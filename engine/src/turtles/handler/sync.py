# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings one VMI of this node to what its object says, and its status to what libvirt says. Level-triggered.

Every call starts from what is there: the object, the Pod's folder, the domain. What must survive a killed agent and
can't be read back from those is in :mod:`turtles.handler.state`.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import libvirt

from turtles.api import conditions, times
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.guests import grace_period
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import FAILED, FINAL_PHASES, HANDED_OVER, RUNNING, SUCCEEDED, set_phase
from turtles.domain import definition, lifecycle, network, paths
from turtles.domain import status as domain_status
from turtles.domain.status import GuestInfo
from turtles.domain.xml import AnswerError
from turtles.handler import delivery, plumbing
from turtles.handler.domain import Domain
from turtles.handler.errors import LauncherBusy, LauncherGone, LauncherNotReady, LibvirtError
from turtles.handler.guest_agent import POLL_INTERVAL, GuestAgents
from turtles.handler.launcher import Launcher
from turtles.handler.rate import Bucket
from turtles.handler.state import State, Store
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)

Key = tuple[str, str]

#: Seconds between two requests to the guest to shut down.
SHUTDOWN_REPEAT = 5.0
#: Seconds the launcher of a running guest may stay silent; it restarts its libvirtd within one.
UNRESPONSIVE_AFTER = 20.0
#: Seconds of that after which the VMI isn't Ready any more.
NOT_READY_AFTER = 5.0
#: Seconds after which a running guest's libvirtd is asked again, though nothing seems to have happened.
LOOK_INTERVAL = 30.0
#: Seconds from the first attempt to end a guest at once until its Pod has to be ended instead.
DESTROY_LIMIT = 30.0
#: How often a VMI may be synchronised at once and each second: its Pod could call for it without end.
_SYNCS, _SYNCS_RATE = 60, 1
#: Seconds in which a VMI must have started, from the first attempt (KubeVirt's default for the same).
START_LIMIT = 300.0
#: Seconds after which a VMI without a launcher is looked at again, should a notification have been lost.
_LOOK_AGAIN = 2.0
#: Seconds after which libvirtd, seen but not listening yet, is tried again.
_SOON = 0.02
#: First and longest pause between two attempts to do what failed, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 30.0

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


class Cluster(Protocol):
    """What the synchronisation needs of Kubernetes."""

    def get(self, key: Key) -> Object | None:
        """Return the VMI; it is not modified."""

    def patch(self, vmi: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """Merge *status* (None deletes a key) into the VMI's status if it is still the one that was read."""

    def event(self, vmi: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        """Record an event."""

    def enqueue(self, key: Key) -> None:
        """Have the VMI synchronised soon; may be called from any thread."""


class Failure(Exception):
    """The VMI ends here. ``reason`` is the event's; the message says what happened and what to do."""

    def __init__(self, reason: str, message: str, phase: str = FAILED, *, asked_for: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.phase = phase
        self.asked_for = asked_for


@dataclass
class _Guest:
    """What the running agent knows about one VMI."""

    uid: str
    state: State
    launcher: Launcher | None = None
    silent_since: float | None = None
    first_attempt: float = field(default_factory=time.monotonic)
    signalled: float | None = None
    info: GuestInfo | None = None
    asked: float | None = None
    attempts: int = 0
    retry_at: float = 0.0
    error: str = ""
    #: uid of the Pod to whose launcher the VMI was delivered.
    delivered: str = ""
    syncs: Bucket = field(default_factory=lambda: Bucket(_SYNCS, _SYNCS_RATE))


@dataclass(frozen=True)
class _Seen:
    """A domain as it was found, and what its interfaces are."""

    state: int
    reason: int
    live: domain_status.Live | None
    plans: tuple[network.InterfacePlan, ...]
    addresses: tuple[str, ...]


class Synchroniser:
    """Synchronises the VMIs of one node."""

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        pods_dir: str,
        store: Store,
        watcher: Watcher,
        *,
        emulator: str = "/usr/bin/qemu-system-x86_64",
        capability_cache: Path | None = None,
        configuration: Callable[[], ClusterConfiguration] = lambda: DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make one.

        :param pods_dir: the kubelet's (or podrunner's) folder of Pods.
        :param watcher: notices what happens in the Pods' folders.
        :param emulator: path of QEMU in the launcher.
        :param capability_cache: what a probe of this node found out about QEMU, for launchers that don't know it.
        :param configuration: gives what the installation chooses for machines that start now.
        :param clock: what deadlines that outlive this process are measured by, of the kind of ``time.monotonic``.
        """
        self._cluster = cluster
        self._node = node
        self._pods_dir = pods_dir
        self._store = store
        self._emulator = emulator
        self._capability_cache = capability_cache
        self._configuration = configuration
        self._clock = clock
        self._watcher = watcher
        self._agents = GuestAgents()
        self._guests: dict[Key, _Guest] = {}
        self._lock = threading.Lock()

    def forget_except(self, uids: set[str]) -> None:
        """Drop what is stored about VMIs that don't exist any more; to be called at start."""
        for uid in set(self._store.uids()) - uids:
            self._store.drop(uid)

    def sync(self, key: Key) -> float | None:
        """Synchronise one VMI.

        Returns the seconds after which to look again, None if only a notification calls for that.
        """
        vmi = self._cluster.get(key)
        guest = self._guests.get(key)
        if guest is not None and (vmi is None or vmi["metadata"]["uid"] != guest.uid):
            self._forget(key, guest)
            guest = None
        if vmi is None:
            return None
        status = vmi.get("status") or {}
        phase = status.get("phase")
        if phase in FINAL_PHASES:
            self._clear(key, vmi)
            return None
        if phase not in HANDED_OVER or status.get("nodeName") != self._node:
            return None
        guest = guest or self._meet(key, vmi)
        # An attempt to start that failed made events of its own; they are no reason for the next one
        left = guest.retry_at - time.monotonic()
        if left > 0 and not guest.state.started and not is_deleted(vmi):
            return left
        if wait := guest.syncs.ask():
            return wait
        began = time.monotonic()
        try:
            try:
                again = self._drive(key, vmi, guest)
            except LauncherNotReady as error:
                return self._without_launcher(vmi, guest, error, began)
            except (plumbing.PlumbingError, OSError) as error:
                if guest.launcher is None or guest.launcher.connected():
                    raise
                # The Pod went meanwhile, or its libvirtd did: what that means the next look finds out
                return self._without_launcher(vmi, guest, LauncherBusy(str(error)), began)
            guest.attempts = 0
            guest.silent_since = None
            return again
        except Failure as failure:
            self._end(vmi, guest, failure)
            return None
        except (LibvirtError, plumbing.PlumbingError, OSError) as error:
            guest.error = str(error)
            self._complain(vmi, error)
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**guest.attempts)
            guest.attempts = min(guest.attempts + 1, 30)
            guest.retry_at = time.monotonic() + pause
            log.warning("attempt failed: %s", error, extra={"vmi": _text(vmi), "retry_in": pause})
            return float(pause)

    # The guest

    def _meet(self, key: Key, vmi: Object) -> _Guest:
        guest = _Guest(vmi["metadata"]["uid"], self._store.load(vmi["metadata"]["uid"]))
        with self._lock:
            self._guests[key] = guest
        return guest

    def _forget(self, key: Key, guest: _Guest) -> None:
        with self._lock:
            self._guests.pop(key, None)
        if guest.launcher is not None:
            guest.launcher.close()
            guest.launcher = None
        self._store.drop(guest.uid)

    def _clear(self, key: Key, vmi: Object) -> None:
        """The phase is final and stored: take the domain away, which tells the launcher to leave."""
        guest = self._guests.get(key)
        if guest is None:
            if vmi["metadata"]["uid"] not in self._store.uids():
                return
            guest = self._meet(key, vmi)
        try:
            domain = self._launcher(key, vmi, guest).domain(_name(vmi))
            if domain is not None:
                domain.remove()
        except (LauncherNotReady, Failure):
            pass  # there is nothing to take away, or nobody who would: the Pod ends, and all of it
        self._forget(key, guest)

    def _launcher(self, key: Key, vmi: Object, guest: _Guest) -> Launcher:
        pod_uid = _pod_uid(vmi, self._node)
        if guest.state.pod_uid != pod_uid:
            guest.state = State(pod_uid)
            self._store.save(guest.uid, guest.state)
        if guest.launcher is not None and guest.launcher.pod_uid != pod_uid:
            guest.launcher.close()
            guest.launcher = None
        if guest.launcher is None:

            def stopped(detail: int) -> None:
                guest.state.stopped = lifecycle.stopped_event_reason(detail)

            disks = [volume["name"] for volume in vmi["spec"].get("volumes") or () if "containerDisk" in volume]
            guest.launcher = Launcher(
                self._pods_dir, pod_uid, self._watcher, lambda: self._cluster.enqueue(key), stopped, disks
            )
        return guest.launcher

    def _drive(self, key: Key, vmi: Object, guest: _Guest) -> float | None:
        launcher = self._launcher(key, vmi, guest)
        self._deliver(vmi, guest, launcher.pod_uid)
        domain = launcher.domain(_name(vmi))
        state, reason = domain.state() if domain is not None else (lifecycle.State.NOSTATE, 0)
        deleted = is_deleted(vmi)
        if domain is None or (lifecycle.never_ran(state, reason) and not self._ran(vmi, guest)):
            if domain is None and self._ran(vmi, guest):
                raise self._ended_unseen(vmi, guest, "libvirt does not know the guest any more")
            if deleted:
                raise Failure("Deleted", "The VirtualMachineInstance was deleted before its guest was started.")
            domain = self._start(vmi, guest, launcher)
            state, reason = domain.state()
        if lifecycle.alive(state) and not guest.state.started:
            guest.state.started = True
            self._store.save(guest.uid, guest.state)
        again = LOOK_INTERVAL
        if deleted and lifecycle.alive(state):
            again = min(again, self._shut_down(vmi, guest, domain))
            state, reason = domain.state()
        self._report(key, vmi, guest, self._look(vmi, guest, launcher, domain, state, reason))
        return again

    def _deliver(self, vmi: Object, guest: _Guest, pod_uid: str) -> None:
        """Deliver the VMI to its launcher, which waits for it before it publishes libvirtd's socket.

        :raises LauncherNotReady: if that isn't possible (yet).
        """
        if guest.delivered == pod_uid or self._ran(vmi, guest) or is_deleted(vmi):
            return
        try:
            delivery.deliver(self._pods_dir, pod_uid, vmi)
        except FileNotFoundError as error:
            raise LauncherGone(f"the Pod's folder {error.filename} does not exist") from None
        except OSError as error:
            message = f"the VirtualMachineInstance can't be delivered to its launcher: {error.strerror}"
            if guest.error != message:
                guest.error = message
                self._complain(vmi, OSError(message))
            raise LauncherNotReady(message) from error
        guest.delivered = pod_uid

    def _ran(self, vmi: Object, guest: _Guest) -> bool:
        return guest.state.started or vmi["status"]["phase"] == RUNNING

    def _without_launcher(self, vmi: Object, guest: _Guest, error: LauncherNotReady, began: float) -> float:
        """Decide what it means that libvirtd can't be asked; return when to look again.

        :param began: when it was asked. It may have taken its time.
        """
        now = time.monotonic()
        if guest.silent_since is None:
            guest.silent_since = began
        log.debug("the launcher does not answer (yet): %s", error, extra={"vmi": _text(vmi)})
        if self._ran(vmi, guest):
            limit = UNRESPONSIVE_AFTER
        elif is_deleted(vmi):
            raise Failure("Deleted", "The VirtualMachineInstance was deleted before its guest was started.")
        else:
            limit = START_LIMIT
        gone = isinstance(error, LauncherGone)
        if (gone and self._ran(vmi, guest)) or now - guest.silent_since > limit:
            raise self._ended_unseen(vmi, guest, str(error))
        if self._ran(vmi, guest) and now - guest.silent_since >= NOT_READY_AFTER:
            self._report_silence(vmi, str(error))
        if isinstance(error, LauncherBusy):
            return min(_LOOK_AGAIN, max(_SOON, (now - guest.silent_since) / 4))
        return _LOOK_AGAIN

    def _report_silence(self, vmi: Object, message: str) -> None:
        """Say that nobody knows whether the guest runs."""
        status: Object = copy.deepcopy(vmi["status"])
        found: list[Object] = status.setdefault("conditions", [])
        if (conditions.get_condition(found, "Synchronized") or {}).get("reason") == conditions.UNRESPONSIVE:
            return
        for type_ in ("Synchronized", "Ready"):
            conditions.set_condition(found, type_, "False", conditions.UNRESPONSIVE, message, times.now())
        self._patch(vmi, status)
        log.warning("the launcher does not answer: %s", message, extra={"vmi": _text(vmi)})

    def _ended_unseen(self, vmi: Object, guest: _Guest, what: str) -> Failure:
        """Say how a guest ended whose domain can't be asked: as its last event said, else badly."""
        if guest.state.stopped is not None:
            acpi = definition.acpi_enabled(vmi["spec"])
            phase = lifecycle.phase_of(lifecycle.State.SHUTOFF, guest.state.stopped, acpi=acpi) or FAILED
            return self._stopped(vmi, guest, lifecycle.State.SHUTOFF, guest.state.stopped, phase)
        return Failure(
            "LauncherUnresponsive",
            f"The launcher Pod does not answer for the guest any more ({what}). See the launcher Pod's log; "
            "a VirtualMachine with runStrategy Always or RerunOnFailure starts a new instance by itself.",
        )

    @staticmethod
    def _stopped(vmi: Object, guest: _Guest, state: int, reason: int, phase: str) -> Failure:
        crashed = state == lifecycle.State.CRASHED or reason == lifecycle.Shutoff.CRASHED
        if crashed and guest.launcher is not None and guest.launcher.reached_memory_limit():
            return Failure(
                "OOMKilled",
                "QEMU was killed because the launcher Pod reached its memory limit; raise "
                "spec.domain.resources.limits.memory, or leave it out.",
                phase,
            )
        grace = grace_period(vmi["spec"]) if guest.state.shutdown_at is not None else None
        asked_for = grace is not None and lifecycle.at_once(grace)
        return Failure("Stopped", lifecycle.end_text(state, reason, grace), phase, asked_for=asked_for)

    def _plans(self, vmi: Object, facts: network.PodInterface | None) -> tuple[network.InterfacePlan, ...]:
        found = network.pod_network_interface(vmi["spec"])
        if found is None or facts is None:
            return ()
        try:
            return (network.plan(*found, facts, vmi["metadata"]["uid"]),)
        except ValueError as error:
            raise Failure("NetworkNotSupported", str(error)) from error

    def _pod_interface(
        self, vmi: Object, guest: _Guest, launcher: Launcher, live: domain_status.Live | None = None
    ) -> network.PodInterface | None:
        """Return what CNI gave the Pod: as stored, else read."""
        found = network.pod_network_interface(vmi["spec"])
        if found is None or guest.state.pod_interface is not None:
            return guest.state.pod_interface
        facts = plumbing.read_pod_interface(launcher.netns, network.POD_INTERFACE)
        if live is not None and live.macs.get(found[0]["name"]):
            # The store was lost while the guest ran. Where the guest took over the Pod's MAC, only the domain has it.
            facts = replace(facts, mac=live.macs[found[0]["name"]])
        guest.state.pod_interface = facts
        self._store.save(guest.uid, guest.state)
        return facts

    def _start(self, vmi: Object, guest: _Guest, launcher: Launcher) -> Domain:
        if time.monotonic() - guest.first_attempt > START_LIMIT:
            raise Failure(
                "StartTimeout", f"The guest could not be started within {START_LIMIT:g} s. Last error: {guest.error}"
            )
        began = time.monotonic()
        guest.state.stopped = None
        facts = self._pod_interface(vmi, guest, launcher)
        plans = self._plans(vmi, facts)
        for plan in plans:
            assert facts is not None
            plumbing.connect(launcher.netns, plan, facts)
        plumbed = time.monotonic()
        launcher.make_private_dir(guest.uid)
        launcher.own_devices(paths.block_volumes(vmi))
        if self._capability_cache is not None:
            self._bring_cache(vmi, launcher, self._capability_cache)
        host = definition.Host(
            launcher.has_kvm(), self._emulator, self._without_direct_io(vmi, launcher), self._configuration()
        )
        try:
            xml = definition.domain_xml(vmi, plans, host)
        except ValueError as error:
            raise Failure("DomainNotSupported", str(error)) from error
        paused = vmi["spec"].get("startStrategy") == "Paused"
        try:
            domain = launcher.connection().start(xml, paused=paused)
        except LibvirtError as error:
            if error.code in _HOPELESS:
                raise Failure("StartFailed", f"libvirt refuses the machine: {error}") from error
            raise
        log.info(
            "guest started",
            extra={
                "vmi": _text(vmi),
                "uid": guest.uid,
                "plumbing_ms": round((plumbed - began) * 1000),
                "start_ms": round((time.monotonic() - plumbed) * 1000),
            },
        )
        return domain

    @staticmethod
    def _bring_cache(vmi: Object, launcher: Launcher, cache: Path) -> None:
        try:
            launcher.bring_capability_cache(cache)
        except OSError as error:
            log.info("libvirtd has to find out about QEMU by itself: %s", error, extra={"vmi": _text(vmi)})

    def _without_direct_io(self, vmi: Object, launcher: Launcher) -> frozenset[str]:
        block = paths.block_volumes(vmi)
        return frozenset(
            volume["name"]
            for volume in vmi["spec"].get("volumes") or ()
            if "persistentVolumeClaim" in volume
            and volume["name"] not in block
            and not launcher.bypasses_page_cache(paths.claim_disk(volume["name"]))
        )

    def _shut_down(self, vmi: Object, guest: _Guest, domain: Domain) -> float:
        """Ask the guest to shut down, repeatedly; end it when its grace period is over. Returns when to look again."""
        grace = grace_period(vmi["spec"])
        now = self._clock()
        if guest.state.shutdown_at is None:
            guest.state.shutdown_at = now
            self._store.save(guest.uid, guest.state)
            self._cluster.event(vmi, "Normal", "ShuttingDown", "Signaled Graceful Shutdown")
        left = guest.state.shutdown_at + grace - now
        if left < -DESTROY_LIMIT:
            raise Failure(
                "LauncherUnresponsive",
                f"The guest could not be switched off within {DESTROY_LIMIT:g} s; its launcher Pod is ended instead.",
            )
        if left <= 0 or not definition.acpi_enabled(vmi["spec"]):
            domain.destroy()
            return _LOOK_AGAIN
        moment = time.monotonic()
        if guest.signalled is None or moment - guest.signalled >= SHUTDOWN_REPEAT - 0.1:
            guest.signalled = moment
            try:
                domain.shut_down()
            except LibvirtError as error:
                # It may have ended meanwhile, or be in a state in which it has no power button; its time runs anyway.
                log.info("the guest can't be asked to shut down: %s", error, extra={"vmi": _text(vmi)})
        return min(SHUTDOWN_REPEAT, left)

    # The status

    def _look(
        self,
        vmi: Object,
        guest: _Guest,
        launcher: Launcher,
        domain: Domain,
        state: int,
        reason: int,
    ) -> _Seen:
        try:
            live = domain_status.live(domain.xml()) if lifecycle.alive(state) else None
        except AnswerError as error:
            raise LauncherBusy(f"libvirtd talks nonsense: {error}") from error
        facts = self._pod_interface(vmi, guest, launcher, live)
        addresses = tuple(address for address, _ in facts.addresses) if facts else ()
        return _Seen(state, reason, live, self._plans(vmi, facts), addresses)

    def _report(self, key: Key, vmi: Object, guest: _Guest, seen: _Seen) -> None:
        phase = lifecycle.phase_of(seen.state, seen.reason, acpi=definition.acpi_enabled(vmi["spec"]))
        if phase in FINAL_PHASES:
            raise self._stopped(vmi, guest, seen.state, seen.reason, phase)
        status: Object = copy.deepcopy(vmi["status"])
        now = times.now()
        spec = vmi["spec"]
        if phase == RUNNING and status["phase"] != phase:
            set_phase(status, phase, now)
        if seen.live is not None:
            status["machine"] = {"type": seen.live.machine}
            status["memory"] = domain_status.memory(spec, seen.live.memory, status.get("memory"))
            status["currentCPUTopology"] = domain_status.cpu_topology(spec)
            self._agent(key, vmi, guest, seen.live)
        connected = seen.live is not None and seen.live.agent_connected
        if guest.info is not None:
            names = guest.info.interface_names
        else:  # until the agent has answered an agent of ours that was restarted, what it said before holds
            names = domain_status.known_names(status.get("interfaces")) if connected else {}
        status["interfaces"] = domain_status.interfaces(seen.plans, seen.addresses, names)
        status["volumeStatus"] = domain_status.volume_status(spec, status.get("volumeStatus"))
        if guest.info is not None and guest.info.os_info:
            status["guestOSInfo"] = guest.info.os_info
        elif not connected:
            status.pop("guestOSInfo", None)
        migration = domain_status.migratability(vmi)
        status["migrationMethod"] = migration.method
        status["conditions"] = self._conditions(guest, seen, migration, status.get("conditions") or [], now)
        self._patch(vmi, status)
        if status["phase"] != vmi["status"]["phase"]:
            self._cluster.event(vmi, "Normal", "Started", "VirtualMachineInstance started.")
        before = conditions.get_condition(vmi["status"].get("conditions"), "Paused")
        pause = conditions.get_condition(status["conditions"], "Paused")
        if pause is not None and before is None and pause["reason"] == "PausedIOError":
            self._cluster.event(
                vmi,
                "Warning",
                "PausedIOError",
                "The guest is paused because a disk could not be written or read; make space on its storage, then "
                "unpause it.",
            )

    def _conditions(
        self, guest: _Guest, seen: _Seen, migration: domain_status.Migratability, found: list[Object], now: str
    ) -> list[Object]:
        def put(type_: str, wanted: bool, status: str = "True", reason: str = "", message: str = "") -> None:
            if wanted:
                conditions.set_condition(found, type_, status, reason, message, now)
            else:
                conditions.remove_condition(found, type_)

        put("LiveMigratable", True, "False", migration.reason, migration.message)
        pause = lifecycle.pause_of(seen.state, seen.reason)
        put("Paused", pause is not None, "True", pause.reason if pause else "", pause.message if pause else "")
        live = seen.live
        connected = live is not None and live.agent_connected
        put("AgentConnected", connected)
        missing = guest.info.missing if guest.info else ()
        if guest.info is not None or not connected:
            put(
                "AgentVersionNotSupported",
                connected and bool(missing),
                "True",
                "RequiredCommandsNotSupported",
                f"The guest agent lacks or refuses {', '.join(missing)}; update it, or allow them in its settings.",
            )
        put(
            "SoftwareEmulation",
            live is not None and live.emulated,
            "True",
            "KVMNotAvailable",
            "The guest runs under software emulation because KVM is not available to its launcher.",
        )
        put("Synchronized", False)
        return found

    def _agent(self, key: Key, vmi: Object, guest: _Guest, live: domain_status.Live) -> None:
        """Ask the guest agent, if it is there and hasn't been asked lately."""
        if not live.agent_connected:
            guest.asked, guest.info = None, None
            return
        now = time.monotonic()
        if guest.asked is not None and now - guest.asked < POLL_INTERVAL:
            return
        guest.asked = now
        domain = guest.launcher.domain(_name(vmi)) if guest.launcher else None
        if domain is None:
            return

        def done(info: GuestInfo | None) -> None:
            guest.info = info
            if info is not None:
                self._cluster.enqueue(key)

        self._agents.ask(domain, _name(vmi), done)

    def _patch(self, vmi: Object, status: Object) -> None:
        old = vmi["status"]
        changes = {name: status.get(name) for name in {*old, *status} if status.get(name) != old.get(name)}
        if changes:
            self._cluster.patch(vmi, changes)

    def _end(self, vmi: Object, guest: _Guest, failure: Failure) -> None:
        status: Object = copy.deepcopy(vmi["status"])
        now = times.now()
        set_phase(status, failure.phase, now)
        found: list[Object] = status.setdefault("conditions", [])
        for type_ in ("Paused", "AgentConnected", "AgentVersionNotSupported", "Synchronized"):
            conditions.remove_condition(found, type_)
        conditions.set_condition(found, "Ready", "False", *conditions.GUEST_NOT_RUNNING, now)
        self._patch(vmi, status)
        good = failure.phase == SUCCEEDED or failure.reason == "Deleted" or failure.asked_for
        self._cluster.event(vmi, "Normal" if good else "Warning", failure.reason, str(failure))
        log.info(
            "guest ended", extra={"vmi": _text(vmi), "uid": guest.uid, "phase": failure.phase, "why": str(failure)}
        )

    def _complain(self, vmi: Object, error: Exception) -> None:
        """Say that an attempt failed; another one follows."""
        message = str(error)
        self._cluster.event(vmi, "Warning", "SyncFailed", f"{message} (it is tried again)")
        status: Object = copy.deepcopy(vmi["status"])
        found: list[Object] = status.setdefault("conditions", [])
        before = conditions.get_condition(found, "Synchronized")
        if before is not None and before.get("reason") == conditions.AGENT_FAILED:
            return  # a write for every attempt would call for the next one at once
        conditions.set_condition(found, "Synchronized", "False", conditions.AGENT_FAILED, message, times.now())
        self._patch(vmi, status)


def _name(vmi: Mapping[str, Any]) -> str:
    return paths.domain_name(vmi["metadata"]["namespace"], vmi["metadata"]["name"])


def _text(vmi: Mapping[str, Any]) -> str:
    return f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"


def _pod_uid(vmi: Mapping[str, Any], node: str) -> str:
    for uid, node_name in (vmi["status"].get("activePods") or {}).items():
        if node_name == node and (name := Path(uid).name).strip("."):
            return name  # it becomes part of a path
    raise Failure(
        "NoLauncherPod", f"status.activePods names no launcher Pod on node {node}; delete the VMI to have it made anew."
    )
