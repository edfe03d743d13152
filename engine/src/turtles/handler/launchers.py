# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the launchers of VMIs, delivers VMIs to them, and decides what it means if one says nothing."""

import logging
import time

from turtles.api.objects import Object, is_deleted
from turtles.domain import decision, end, lifecycle, paths
from turtles.domain.decision import Step
from turtles.handler import delivery
from turtles.handler.cluster import Cluster
from turtles.handler.endings import lost
from turtles.handler.errors import GuestEnded, LauncherBusy, LauncherGone, LauncherNotReady
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.reporter import Reporter
from turtles.handler.state import State
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)


class Launchers:
    """The launchers of this node's VMIs."""

    def __init__(self, cluster: Cluster, node: str, pods_dir: str, watcher: Watcher, reporter: Reporter) -> None:
        """Create it.

        :param pods_dir: the kubelet's (or podrunner's) folder of Pods.
        :param watcher: notices what happens in the Pods' folders.
        """
        self._cluster, self._node, self._pods_dir = cluster, node, pods_dir
        self._watcher, self._reporter = watcher, reporter

    def find(self, vmi: Object, guest: Guest) -> Launcher:
        """Return the launcher of a VMI.

        :raises GuestEnded: if it has none on this node.
        """
        pod_uid = decision.launcher_pod_uid(vmi, self._node)
        if pod_uid is None:
            raise GuestEnded(end.no_launcher_pod(self._node))
        if guest.state.pod_uid != pod_uid:
            guest.state = State(pod_uid)
            guest.save()
        if guest.launcher is not None and guest.launcher.pod_uid != pod_uid:
            guest.close_launcher()
        if guest.launcher is None:

            def stopped(detail: int) -> None:
                guest.state.stopped = lifecycle.stopped_event_reason(detail)

            images = list(paths.images(vmi["spec"]))
            guest.launcher = Launcher(
                self._pods_dir, pod_uid, self._watcher, lambda: self._cluster.enqueue(guest.key), stopped, images
            )
        return guest.launcher

    def deliver(self, vmi: Object, guest: Guest, launcher: Launcher) -> None:
        """Deliver the VMI to its launcher, which waits for it before it publishes libvirtd's socket.

        :raises LauncherNotReady: if that isn't possible (yet).
        """
        if guest.delivered == launcher.pod_uid or guest.has_run(vmi) or is_deleted(vmi):
            return
        try:
            delivery.deliver(self._pods_dir, launcher.pod_uid, vmi)
        except FileNotFoundError as error:
            raise LauncherGone(f"the Pod's folder {error.filename} does not exist") from None
        except OSError as error:
            message = f"the VirtualMachineInstance can't be delivered to its launcher: {error.strerror}"
            if guest.error != message:
                guest.error = message
                self._reporter.attempt_failed(vmi, message)
            raise LauncherNotReady(message) from error
        guest.delivered = launcher.pod_uid

    def wait(self, vmi: Object, guest: Guest, error: LauncherNotReady, began: float) -> float:
        """Decide what it means that libvirtd can't be asked; return when to look again.

        :param began: when it was asked. It may have taken its time.
        :raises GuestEnded: if it will not be asked again.
        """
        if guest.silent_since is None:
            guest.silent_since = began
        log.debug("the launcher does not answer (yet): %s", error, extra={"vmi": str(guest)})
        step = decision.on_silence(
            time.monotonic() - guest.silent_since,
            has_run=guest.has_run(vmi),
            deleted=is_deleted(vmi),
            gone=isinstance(error, LauncherGone),
            busy=isinstance(error, LauncherBusy),
        )
        if step is Step.CANCEL:
            raise GuestEnded(end.DELETED_BEFORE_START)
        if not isinstance(step, decision.Wait):
            raise GuestEnded(lost(vmi, guest, str(error)))
        if step.report:
            self._reporter.unresponsive(vmi, guest, str(error))
        return step.seconds
