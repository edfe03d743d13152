# SPDX-License-Identifier: GPL-3.0-or-later
"""The source's side of live migrations: sends guests to another node, watches over that, and hands them over.

libvirt does the work in one long call, on a thread of its own; what it depends on is reread each time a VMI is
synchronised. libvirtd outlives this process, but not the way to the target, which leads through it: a migration that
finds its virt-handler restarted fails, and the guest runs on here, unless it had arrived by then.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from turtles.api import labels, migrations, times
from turtles.api.node_server import Endpoint
from turtles.api.objects import Object, is_deleted
from turtles.domain import definition, lifecycle, migration, paths
from turtles.domain.live_domain import read_live
from turtles.domain.migration import Verdict
from turtles.domain.xml import AnswerError
from turtles.handler.cluster import Cluster
from turtles.handler.domain import Domain, Way
from turtles.handler.errors import LauncherNotReady, LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.migration_proxy import DISKS, LIBVIRTD, MEMORY, Lead, MigrationProxy

log = logging.getLogger(__name__)

#: Seconds between two looks at a migration, and between two reports about it.
_LOOK, _REPORT = 0.25, 2.0
#: Seconds after which a migration is looked at again, should a notification have been lost.
_AGAIN = 5.0
#: Seconds for which the target may still say that the guest arrived when its source is gone.
_LAST_WORD = 10.0
_ABORTED = "Live migration aborted as requested"
_DELETED = "the VirtualMachineInstance is being deleted"
#: What QEMU says that may not handle its own page faults (userfaultfd).
_NO_POST_COPY = "Postcopy is not supported"
_RESTARTED = "virt-handler was restarted on the source node during the migration"


@dataclass
class _Job:
    """A migration that this process has begun. The thread writes, others read."""

    uid: str
    lead: Lead
    how: migration.Settings
    began: float = field(default_factory=time.monotonic)
    statistics: dict[str, Any] = field(default_factory=dict)
    mode: str = migrations.PRE_COPY
    abort: str = ""
    #: Why there is no post-copy although it is allowed.
    no_post_copy: str = ""
    #: Whether libvirt's call is over, and why it failed if it did.
    over: bool = False
    error: str = ""
    #: When the thread last called for a report, and when there was one.
    reported: float = 0.0
    told: float = 0.0


class Departures:
    """The guests that leave this node."""

    def __init__(self, cluster: Cluster, node: str, proxy: MigrationProxy, find: Callable[[str], Endpoint]) -> None:
        """Create it.

        :param find: returns where the virt-handler of a node takes guests. Raises LookupError.
        """
        self._cluster, self._node, self._proxy, self._find = cluster, node, proxy, find
        self._jobs: dict[str, _Job] = {}

    def is_leaving(self, guest: Guest) -> bool:
        """Say whether a guest is on its way, so that it is to be changed by nobody."""
        job = self._jobs.get(guest.uid)
        return job is not None and not job.over

    def progress(self, guest: Guest) -> Mapping[str, Any]:
        """Return libvirt's statistics of a guest's migration as of the last look; empty if there is none."""
        job = self._jobs.get(guest.uid)
        return {} if job is None or job.over else job.statistics

    def follow(self, vmi: Object, guest: Guest, launcher: Launcher, domain: Domain) -> float | None:
        """Bring the migration of a guest of this node forward; return when to look again, None if there is none."""
        state = migrations.state_of(vmi)
        if not migrations.is_source(vmi, self._node):
            self._jobs.pop(guest.uid, None)
            return None
        now, job = times.now(), self._jobs.get(guest.uid)
        if job is not None and job.uid != state["migrationUid"]:
            job = None
        if job is None:
            return self._without_job(vmi, guest, launcher, domain, state, now)
        if job.no_post_copy and (state.get("migrationConfiguration") or {}).get("allowPostCopy"):
            self._write(vmi, {"migrationConfiguration": {"allowPostCopy": False}})
            message = (
                f"The guest is migrated without post-copy, which the nodes' kernels don't allow: {job.no_post_copy}"
            )
            self._event(vmi, "Warning", "PostCopyNotAvailable", message)
            return _AGAIN
        if is_deleted(vmi):
            job.abort = job.abort or _DELETED
        if state.get("abortRequested") and not job.over and not job.abort:
            job.abort = _ABORTED
            self._write(vmi, {"abortStatus": migrations.ABORTING})
            return _AGAIN
        if not job.over:
            self._tell_progress(vmi, job)
            return _AGAIN
        if job.error:
            self._failed(vmi, guest, state, job.error, now, aborted=job.abort == _ABORTED)
            return _AGAIN
        self.hand_over(vmi, guest, domain)
        return _AGAIN

    def _without_job(
        self, vmi: Object, guest: Guest, launcher: Launcher, domain: Domain, state: Object, now: str
    ) -> float:
        if state.get("startTimestamp"):
            # Another process of this agent began it.
            domain.abort_job()
            if not domain.job():
                # It may have arrived just now
                if self.has_left(vmi, *domain.state()):
                    self.hand_over(vmi, guest, domain)
                else:
                    self._failed(vmi, guest, state, _RESTARTED, now, aborted=False)
            return _LOOK
        if state.get("abortRequested"):
            self._failed(vmi, guest, state, _ABORTED, now, aborted=True)
        elif is_deleted(vmi):
            self._failed(vmi, guest, state, _DELETED, now, aborted=False)
        elif state.get("targetNodeAddress"):
            self._begin(vmi, guest, launcher, domain, state, now)
        return _AGAIN

    def _begin(self, vmi: Object, guest: Guest, launcher: Launcher, domain: Domain, state: Object, now: str) -> None:
        try:
            target = self._find(state["targetNode"])
            xml = domain.xml()
            disks = migration.copied_disks(xml)
            _check_caches(xml, state)
            size = read_live(xml).memory + sum(domain.disk_size(name) for name in disks)
            how = migration.settings(state, size)
            how = replace(how, connections=migration.connections(vmi, post_copy=how.post_copy))
            listeners = launcher.listen((paths.MIGRATION_LIBVIRTD, paths.MIGRATION_MEMORY, paths.MIGRATION_DISKS))
            lead = self._proxy.lead(
                state["migrationUid"],
                target,
                dict(zip((LIBVIRTD, MEMORY, DISKS), listeners, strict=True)),
                in_order=how.connections > 0,
            )
        except (LookupError, ValueError, AnswerError, OSError) as error:
            self._failed(vmi, guest, state, f"the migration can't start: {error}", now, aborted=False)
            return
        way = Way(
            libvirtd=paths.MIGRATION_LIBVIRTD,
            memory=paths.MIGRATION_MEMORY,
            disks=paths.MIGRATION_DISKS,
            copied_disks=disks,
            bandwidth=how.bandwidth,
            auto_converge=how.auto_converge,
            post_copy=how.post_copy,
            connections=how.connections,
        )
        job = _Job(state["migrationUid"], lead, how)
        try:
            # Said before it is so: an agent that is killed in between must find that it may have begun
            self._write(vmi, migration.begun(now))
        except BaseException:
            lead.close()
            raise
        self._jobs[guest.uid] = job
        self._event(vmi, "Normal", "Migrating", f"VirtualMachineInstance is migrating to node {state['targetNode']}.")
        threading.Thread(
            target=self._run, args=(guest, launcher, job, way), name=f"migration-{guest}", daemon=True
        ).start()

    def _run(self, guest: Guest, launcher: Launcher, job: _Job, way: Way) -> None:
        watch = threading.Thread(target=self._watch, args=(guest, launcher, job), daemon=True)
        try:
            connection = launcher.extra_connection()
            try:
                domain = connection.domain(guest.domain_name)
                if domain is None:
                    raise LibvirtError("libvirtd no longer knows the guest")
                domain.limit_downtime(job.how.max_downtime)
                watch.start()
                self._send(domain, way, job)
            finally:
                job.over = True
                connection.close()
        except (LibvirtError, LauncherNotReady) as error:
            job.error = job.abort or "; ".join(filter(None, (str(error), job.lead.error)))
        except Exception as error:
            log.exception("migrating failed", extra={"vmi": str(guest)})
            job.error = f"internal error in virt-handler: {error!r}"
        finally:
            job.over = True
            job.lead.close()
            log.info(
                "migration ended",
                extra={
                    "vmi": str(guest),
                    "seconds": round(time.monotonic() - job.began, 2),
                    "error": job.error or None,
                },
            )
            self._cluster.enqueue(guest.key)

    def _send(self, domain: Domain, way: Way, job: _Job) -> None:
        """Migrate a guest, without post-copy if there is none: whether QEMU may have it shows when it is asked."""
        try:
            domain.migrate(way)
        except LibvirtError as error:
            if not way.post_copy or job.abort or _NO_POST_COPY not in str(error):
                raise
            job.no_post_copy, job.how = str(error), replace(job.how, post_copy=False)
            domain.migrate(replace(way, post_copy=False))

    def _watch(self, guest: Guest, launcher: Launcher, job: _Job) -> None:
        """Look at a migration until it is over: how far it is, and whether to give it up."""
        progress = migration.Progress(1 << 62, job.began)
        while not job.over:
            try:
                domain = launcher.live_domain(guest.domain_name)
                found = domain.job()
                now = time.monotonic()
                if found:
                    job.statistics = found
                    progress = progress.seen(int(found.get("data_remaining") or 0), now)
                verdict, why = migration.judge(job.how, progress, now - job.began, now, job.mode)
                if verdict is Verdict.POST_COPY and found:
                    domain.start_post_copy()
                    job.mode = migrations.POST_COPY
                elif verdict is Verdict.PAUSE and found:
                    domain.pause()
                    job.mode = migrations.PAUSED
                elif verdict is Verdict.ABORT:
                    job.abort = job.abort or why
                if job.abort and job.mode != migrations.POST_COPY:
                    domain.abort_job()
            except (LibvirtError, LauncherNotReady) as error:
                log.debug("a migration can't be watched: %s", error, extra={"vmi": str(guest)})
            now = time.monotonic()
            if now - job.reported >= _REPORT and job.statistics:
                job.reported = now
                self._cluster.enqueue(guest.key)
            time.sleep(_LOOK)

    def _tell_progress(self, vmi: Object, job: _Job) -> None:
        # Each report changes the VMI, which calls for the next look
        if not job.statistics or time.monotonic() - job.told < _REPORT:
            return
        job.told = time.monotonic()
        status = migration.transferred(job.statistics)
        state = migrations.state_of(vmi)
        if state.get("transferStatus") != status or state.get("mode") != job.mode:
            self._write(vmi, {"transferStatus": status, "mode": job.mode})

    def _failed(self, vmi: Object, guest: Guest, state: Object, reason: str, now: str, *, aborted: bool) -> None:
        self._write(vmi, migration.failed(state, reason, now, aborted=aborted))
        self._jobs.pop(guest.uid, None)
        words = "was aborted" if aborted else "failed"
        message = f"The migration to node {state.get('targetNode')} {words}; the guest stays on this node: {reason}"
        kind = ("Normal", "MigrationAborted") if aborted else ("Warning", "FailedMigration")
        self._event(vmi, *kind, message)

    def has_left(self, vmi: Object, state: int, reason: int) -> bool:
        """Say whether a guest has arrived at its target, by the state of its domain here."""
        return (
            migrations.is_source(vmi, self._node)
            and state == lifecycle.State.SHUTOFF
            and reason == lifecycle.Shutoff.MIGRATED
        )

    def hand_over(self, vmi: Object, guest: Guest, domain: Domain | None) -> None:
        """Hand a guest that has arrived to its target's node, and remove what is left of it here."""
        state = migrations.state_of(vmi)
        node, now = state["targetNode"], times.now()
        self._cluster.patch(
            vmi,
            {
                "nodeName": node,
                "activePods": {guest.state.pod_uid: None},
                "migrationState": migration.succeeded(now, state.get("startTimestamp")),
                "evacuationNodeName": None,
            },
            labels={labels.NODE_NAME: node},
        )
        self._jobs.pop(guest.uid, None)
        self._event(vmi, "Normal", "Migrated", f"The VirtualMachineInstance migrated to node {node}.")
        if domain is not None:
            try:
                domain.remove(keep_variables=definition.keeps_efi_variables(vmi["spec"]))
            except (LibvirtError, LauncherNotReady) as error:
                log.info("the migrated guest can't be removed: %s", error, extra={"vmi": str(guest)})

    def survives(self, vmi: Object, guest: Guest) -> bool | None:
        """Say whether a guest that is gone here runs on at its target; None if that may still be said."""
        state = migrations.state_of(vmi)
        if not migrations.is_source(vmi, self._node) or not state.get("startTimestamp"):
            return False
        if state.get("targetNodeDomainReadyTimestamp"):
            return True
        guest.gone_since = guest.gone_since or time.monotonic()
        return None if time.monotonic() - guest.gone_since < _LAST_WORD else False

    def _write(self, vmi: Object, changes: Object) -> None:
        self._cluster.patch(vmi, {"migrationState": changes})

    def _event(self, vmi: Object, type_: str, reason: str, message: str) -> None:
        self._cluster.event(vmi, type_, reason, message)


def _check_caches(xml: str, state: Mapping[str, Any]) -> None:
    """Make sure that no disk which both nodes use goes through their page caches, unless that is wanted.

    :raises ValueError: one does.
    """
    cached = migration.cached_disks(xml)
    if cached and not migration.settings(state, 0).unsafe:
        raise ValueError(
            f"the nodes cache the shared disks {', '.join(cached)} in memory, so the target might "
            "see stale data; set their cache to none, or, if the storage keeps the nodes' caches "
            "consistent, set migrations.unsafeMigrationOverride in the KubeVirt object"
        )
