# SPDX-License-Identifier: GPL-3.0-or-later
"""Synchronises one VMI of this node: its guest with its object, its status with what libvirt says. Level-triggered.

Find the launcher, deliver the VMI to it, look at the domain, decide, do it, report. Every call starts from what is
there: the object, the Pod's folder, the domain. What is decided and reported is in :mod:`turtles.domain`; what must
survive a killed agent and can't be read back from the rest is in :mod:`turtles.handler.state`.
"""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from turtles.api import migrations
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.node_server import Endpoint
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import HANDED_OVER, RUNNING, is_final, phase_of
from turtles.domain import attestation, decision, definition, end, lifecycle
from turtles.domain.decision import Step
from turtles.domain.end import End
from turtles.domain.live_domain import read_live
from turtles.domain.report import Observation
from turtles.domain.volume_status import Plugged
from turtles.domain.xml import AnswerError
from turtles.handler import hotplug, interfaces, pod_network
from turtles.handler.arrival import Arrivals
from turtles.handler.checksums import Checksums
from turtles.handler.cluster import Cluster, Key
from turtles.handler.credentials import AccessCredentials
from turtles.handler.departure import Departures
from turtles.handler.disk_growth import DiskGrowth
from turtles.handler.domain import Domain
from turtles.handler.endings import lost, stopped
from turtles.handler.errors import GuestEnded, HookError, LauncherBusy, LauncherNotReady, LibvirtError
from turtles.handler.grow import grow
from turtles.handler.guest import Guest, Guests
from turtles.handler.guest_agent import GuestAgents
from turtles.handler.launcher import Launcher
from turtles.handler.launchers import Launchers
from turtles.handler.links import set_links
from turtles.handler.memory_dump import MemoryDumps
from turtles.handler.migration_proxy import MigrationProxy
from turtles.handler.plumbing import PlumbingError
from turtles.handler.reporter import Reporter
from turtles.handler.shutdown import shut_down
from turtles.handler.start import Starter
from turtles.handler.state import Store
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)


class Synchroniser:
    """Synchronises the VMIs of one node."""

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        pods_dir: str,
        store: Store,
        watcher: Watcher,
        proxy: MigrationProxy,
        find_proxy: Callable[[str], Endpoint],
        *,
        emulator: str = "/usr/bin/qemu-system-x86_64",
        capability_cache: Path | None = None,
        configuration: Callable[[], ClusterConfiguration] = lambda: DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it.

        :param pods_dir: the kubelet's (or podrunner's) folder of Pods.
        :param watcher: notices what happens in the Pods' folders.
        :param proxy: the way of guests to other nodes, and from them.
        :param find_proxy: returns where that of another node is. Raises LookupError.
        :param emulator: path of QEMU in the launcher.
        :param capability_cache: what a probe of this node found out about QEMU, for launchers that don't know it.
        :param configuration: gives what the installation chooses for machines that start now.
        :param clock: what deadlines that outlive this process are measured by, of the kind of ``time.monotonic``.
        """
        self._cluster = cluster
        self._node = node
        self._clock = clock
        #: The VMIs that are managed.
        self.guests = Guests(store)
        self._starter = Starter(emulator, capability_cache, configuration)
        self._disk_growth = DiskGrowth()
        self._checksums = Checksums()
        self._agents = GuestAgents()
        self._dumps = MemoryDumps()
        self._credentials = AccessCredentials()
        self._configuration = configuration
        self._reporter = Reporter(cluster)
        self._launchers = Launchers(cluster, node, pods_dir, watcher, self._reporter)
        #: The guests that leave the node.
        self.departures = Departures(cluster, node, proxy, find_proxy)
        self._arrivals = Arrivals(cluster, self._starter, pods_dir, proxy, find_proxy)

    def forget_except(self, uids: set[str]) -> None:
        """Drop what is stored about VMIs that don't exist any more; to be called at start."""
        self.guests.forget_except(uids)

    def sync(self, key: Key) -> float | None:
        """Synchronise one VMI.

        Returns the seconds after which to look again, None if only a notification calls for that.
        """
        vmi = self._cluster.get(key)
        guest = self.guests.get(key)
        if guest is not None and (vmi is None or vmi["metadata"]["uid"] != guest.uid):
            self._arrivals.forget(guest)
            self.guests.forget(guest)
            guest = None
        if vmi is None:
            return None
        if is_final(vmi):
            self._clear(key, vmi)
            return None
        if phase_of(vmi) not in HANDED_OVER or vmi["status"].get("nodeName") != self._node:
            return self._elsewhere(vmi, guest, key)
        guest = guest or self.guests.track(key, vmi["metadata"]["uid"])
        self._arrivals.forget(guest)
        guest.bindings = self._configuration().bindings
        if delay := guest.delay(vmi):
            return delay
        try:
            return self._attempt(vmi, guest)
        except GuestEnded as ended:
            return self._end(vmi, guest, ended.end)
        except (LibvirtError, PlumbingError, HookError, OSError) as error:
            return self._record_failure(vmi, guest, error)

    def _elsewhere(self, vmi: Object, guest: Guest | None, key: Key) -> float | None:
        """Synchronise a VMI whose guest isn't here: it may be on its way."""
        if phase_of(vmi) == RUNNING and migrations.is_target(vmi, self._node) and not is_deleted(vmi):
            guest = guest or self.guests.track(key, vmi["metadata"]["uid"])
            guest.bindings = self._configuration().bindings
            try:
                return self._arrivals.follow(vmi, guest, self._launchers.find(vmi, guest))
            except GuestEnded as ended:
                log.info("can't receive a guest: %s", ended, extra={"vmi": str(guest)})
                return decision.LOOK_AGAIN
        if guest is not None:
            self._arrivals.forget(guest)
            self.guests.forget(guest)
        return None

    def _end(self, vmi: Object, guest: Guest, why: End) -> float | None:
        """Report that a VMI ends, unless its guest runs on at the target of its migration."""
        survives = self.departures.survives(vmi, guest)
        if survives is None:
            return decision.LOOK_AGAIN
        if survives:
            self.departures.hand_over(vmi, guest, None)
        else:
            self._reporter.ended(vmi, guest, why)
        return None

    def _attempt(self, vmi: Object, guest: Guest) -> float:
        """Synchronise a VMI, or wait for its launcher; return when to look again."""
        began = time.monotonic()
        try:
            again = self._drive(vmi, guest)
        except LauncherNotReady as error:
            return self._launchers.wait(vmi, guest, error, began)
        except (PlumbingError, OSError) as error:
            if guest.launcher is None or guest.launcher.connected():
                raise
            # The Pod went meanwhile, or its libvirtd did: what that means the next look finds out
            return self._launchers.wait(vmi, guest, LauncherBusy(str(error)), began)
        guest.attempt_succeeded()
        return again

    def _drive(self, vmi: Object, guest: Guest) -> float:
        """Find the launcher, deliver the VMI, look, decide, do, report; return when to look again."""
        launcher = self._launchers.find(vmi, guest)
        self._launchers.deliver(vmi, guest, launcher)
        domain = launcher.domain(guest.domain_name)
        state, reason = domain.state() if domain is not None else (lifecycle.State.NOSTATE, 0)
        if domain is not None and self.departures.has_left(vmi, state, reason):
            self.departures.hand_over(vmi, guest, domain)
            return decision.LOOK_AGAIN
        step = decision.next_step(
            state,
            reason,
            defined=domain is not None,
            has_run=guest.has_run(vmi),
            deleted=is_deleted(vmi),
        )
        if step is Step.CANCEL:
            raise GuestEnded(end.DELETED_BEFORE_START)
        if step is Step.LOST:
            raise GuestEnded(lost(vmi, guest, "libvirt no longer knows the guest"))
        volumes = hotplug.mount(vmi, guest, launcher, lambda: self._cluster.enqueue(guest.key))
        if step is Step.START or domain is None:
            if attestation.waits_for_session(vmi):
                guest.first_attempt = time.monotonic()
                return decision.LOOK_INTERVAL
            if hotplug.awaited(vmi, volumes) and hotplug.start_waits(guest):
                return hotplug.next_look(vmi, guest, volumes, decision.LOOK_AGAIN)
            domain = self._starter.start(vmi, guest, launcher, hotplug.absent(vmi, volumes))
            state, reason = domain.state()
        if lifecycle.alive(state) and not guest.state.started:
            guest.state.started = True
            guest.save()
        # A guest on its way is left alone; one that is to shut down isn't sent on
        if lifecycle.alive(state) and (due := self.departures.follow(vmi, guest, launcher, domain)) is not None:
            return due
        again = decision.LOOK_INTERVAL
        if step is Step.SHUT_DOWN:
            again = min(again, shut_down(vmi, guest, domain, state, reason, self._clock(), self._reporter))
            state, reason = domain.state()
        if guest.state.thaw_at is not None and lifecycle.alive(state):
            again = min(again, self._thaw(guest, domain, guest.state.thaw_at))
        seen = _observe(vmi, guest, launcher, domain, state, reason, volumes)
        if step is not Step.SHUT_DOWN and self._change(vmi, guest, launcher, domain, seen):
            volumes = hotplug.mount(vmi, guest, launcher, lambda: self._cluster.enqueue(guest.key))
            seen = _observe(vmi, guest, launcher, domain, state, reason, volumes)
        interfaces.give_back(vmi, guest, launcher, seen)
        again = interfaces.next_look(guest, hotplug.next_look(vmi, guest, volumes, again))
        self._report(vmi, guest, domain, seen)
        if seen.live is not None:
            self._disk_growth.grow(vmi, launcher, domain, seen.live)
            self._checksums.compute(vmi, guest, launcher, lambda: self._cluster.enqueue(guest.key))
        return again

    def _change(self, vmi: Object, guest: Guest, launcher: Launcher, domain: Domain, seen: Observation) -> bool:
        """Change what the VMI asks for and the running guest hasn't; return whether there is something new to see."""
        changed = set_links(guest, domain, seen) | grow(vmi, guest, domain, seen)
        if seen.live is None:
            return changed
        changed |= interfaces.follow(vmi, guest, launcher, domain, seen)
        gives = functools.partial(self._starter.host, vmi, launcher)
        changed |= hotplug.plug(vmi, guest, launcher, domain, seen.live, seen.volumes, gives)
        return self._dumps.start(vmi, guest, domain, seen.volumes, lambda: self._cluster.enqueue(guest.key)) or changed

    def _thaw(self, guest: Guest, domain: Domain, due: float) -> float:
        """Thaw the guest's file systems once their freeze has lasted as long as it may; return when to look again."""
        left = due - self._clock()
        if left > 0:
            return left
        guest.state.thaw_at = None
        guest.save()
        self._agents.thaw(guest, domain, lambda: self._cluster.enqueue(guest.key))
        return decision.LOOK_INTERVAL

    def _report(self, vmi: Object, guest: Guest, domain: Domain, seen: Observation) -> None:
        if lifecycle.has_ended(seen.state, seen.reason):
            raise GuestEnded(stopped(vmi, guest, seen.state, seen.reason))
        if seen.live is not None:
            connected = seen.live.agent_connected
            self._agents.refresh(guest, domain, connected, lambda: self._cluster.enqueue(guest.key))
            if connected and guest.launcher is not None:
                self._credentials.refresh(vmi, guest, guest.launcher, domain, lambda: self._cluster.enqueue(guest.key))
        self._reporter.observed(vmi, guest, seen)

    def _record_failure(self, vmi: Object, guest: Guest, error: Exception) -> float:
        """Report that an attempt failed; return when the next one is due."""
        guest.error = str(error)
        self._reporter.attempt_failed(vmi, guest.error)
        pause = guest.back_off()
        log.warning("attempt failed: %s", error, extra={"vmi": str(guest), "retry_in": pause})
        return pause

    def _clear(self, key: Key, vmi: Object) -> None:
        """Remove the domain, now that the phase is final and stored, which tells the launcher to exit."""
        guest = self.guests.get(key)
        if guest is None:
            uid = vmi["metadata"]["uid"]
            if not self.guests.is_stored(uid):
                return
            guest = self.guests.track(key, uid)
        try:
            domain = self._launchers.find(vmi, guest).domain(guest.domain_name)
            if domain is not None:
                domain.remove(keep_variables=definition.keeps_efi_variables(vmi["spec"]))
        except (LauncherNotReady, GuestEnded):
            pass  # there is nothing to take away, or nobody who would: the Pod ends, and all of it
        self._disk_growth.forget(guest.uid)
        self.guests.forget(guest)


def _observe(
    vmi: Object,
    guest: Guest,
    launcher: Launcher,
    domain: Domain,
    state: int,
    reason: int,
    volumes: Mapping[str, Plugged],
) -> Observation:
    """Query libvirt about a domain and its interfaces."""
    try:
        live = read_live(domain.xml()) if lifecycle.alive(state) else None
    except AnswerError as error:
        raise LauncherBusy(f"libvirtd sends invalid data: {error}") from error
    refused = {condition: message for condition, (_, message) in guest.refused.items()}
    plans = pod_network.plans(vmi, guest, pod_network.pod_interfaces(vmi, guest, launcher, live), live)
    return Observation(
        state,
        reason,
        live,
        plans,
        refused,
        dict(guest.checksums),
        volumes,
        dict(guest.dumps),
        dict(guest.interface_failures),
        frozenset(name for name, plugin in guest.bindings.items() if plugin.migratable),
    )
