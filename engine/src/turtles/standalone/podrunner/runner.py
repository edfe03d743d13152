# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the Pods bound to this node to what the API says, one level-triggered sync per Pod.

Every sync looks at the Pod object, the Pod's directory and the processes, and takes what is missing from there; it
remembers nothing that a restart could not find again.
"""

import logging
import time
from signal import SIGKILL, SIGTERM

from turtles.api.objects import Object
from turtles.kube.client import Client, Conflict, NotFound
from turtles.kube.controller import run_workers
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import CONFIGMAP, POD, SECRET
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner import network
from turtles.standalone.podrunner.cgroup import Cgroups
from turtles.standalone.podrunner.cni import CNIError
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import ContainerError
from turtles.standalone.podrunner.image_volumes import ImageVolumes
from turtles.standalone.podrunner.images import ImageError, ImageStore
from turtles.standalone.podrunner.poddir import Observed, PodDir
from turtles.standalone.podrunner.processes import Processes
from turtles.standalone.podrunner.report import Reporter, is_ended
from turtles.standalone.podrunner.start import Starter
from turtles.standalone.podrunner.volumes import VolumeError, Volumes
from turtles.standalone.podrunner.waiting import Waiting
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError, send_signal, wait_end

log = logging.getLogger(__name__)

#: Seconds between two looks at a Pod's tokens, at most.
_TOKENS_AGAIN = 60.0
#: Reasons of events about Pods that wait, by the reason of the waiting; "Failed" for others.
_EVENTS = {"FailedMount": "FailedMount", "CreatePodSandboxError": "FailedCreatePodSandBox"}
#: Reasons to wait that are no event.
_USUAL = ("ContainerCreating", "PodInitializing", "CrashLoopBackOff")


class Runner:
    """Runs the Pods of one node.

    :param pods: informer of the Pods bound to this node.
    :param address: the node's address, ``status.hostIP``.
    """

    def __init__(
        self,
        client: Client,
        config: Config,
        pods: Informer,
        zygote: ZygoteClient,
        images: ImageStore,
        recorder: Recorder,
        address: str,
    ) -> None:
        self._client, self._config, self._pods = client, config, pods
        self._zygote, self._recorder = zygote, recorder
        self._queue: WorkQueue[str] = WorkQueue("pods", first_delay=0.05)
        self._volumes = Volumes(client, config.run_dir, config.node_name)
        self._cgroups = Cgroups(config.cgroup_parent)
        self._processes = Processes(self._queue.add)
        self._images = ImageVolumes(config, images, self.fetch, self._queue.add)
        self._reporter = Reporter(client, config, pods, zygote, recorder, address)
        self._starter = Starter(config, zygote, self._volumes, self._images, self._cgroups, self.fetch, address)
        pods.add_index("uid", lambda pod: [pod["metadata"]["uid"]])
        pods.add_handler(self._changed)

    def start(self) -> None:
        """Start to work; the informer must be synchronised, or Pods that it doesn't know yet would count as deleted."""
        self._processes.start()
        for directory in self._config.pods_dir.iterdir():
            self._queue.add(directory.name)
        run_workers(self._queue, self.sync, self._config.workers, "pods")

    def stop(self) -> None:
        """Stop working; Pods keep running."""
        self._queue.close()
        self._images.stop()
        self._starter.stop()

    def images_in_use(self) -> set[str]:
        """Return the digests of image volumes of the Pods on this node."""
        return self._images.in_use()

    def fetch(self, pod: Object, kind: str, name: str) -> Object | None:
        """Return a Secret or ConfigMap of a Pod's namespace, None if there is none."""
        try:
            return self._client.get(SECRET if kind == "Secret" else CONFIGMAP, pod["metadata"]["namespace"], name)
        except NotFound:
            return None

    def _changed(self, old: Object | None, new: Object | None) -> None:
        # A Pod may have been replaced by another one of its name while the watch was interrupted.
        for uid in {pod["metadata"]["uid"] for pod in (old, new) if pod is not None}:
            self._queue.add(uid)

    def sync(self, uid: str) -> float | None:
        """Advance one Pod; return seconds after which to look again, or None."""
        pod = next(iter(self._pods.by_index("uid", uid)), None)
        directory = PodDir(self._config.pods_dir, uid)
        if pod is None:
            self._images.cancel(uid)
            self._kill(directory)
            self._tear_down(directory)
            self._forget(uid)
            return None
        if pod["metadata"].get("deletionTimestamp"):
            self._images.cancel(uid)
            return self._terminate(pod, directory)
        if is_ended(pod):
            self._images.cancel(uid)
            self._kill(directory)
            network.tear_down(self._config, directory)
            return None
        return self._run(pod, directory)

    def _forget(self, uid: str) -> None:
        for part in (self._images, self._processes, self._reporter, self._starter):
            part.forget(uid)

    def _watch(self, uid: str, observed: Observed) -> None:
        if observed.running and observed.state is not None:
            self._processes.watch(uid, observed.state["pid"])

    # --- running -----------------------------------------------------------------------------------------------------

    def _run(self, pod: Object, directory: PodDir) -> float | None:
        again: float | None = None
        waiting: Waiting | None = None
        try:
            self._warn_of_probes(pod)
            directory.create(pod)
            again = self._start_missing(pod, directory)
            due = self._volumes.renew(pod)
            if due is not None:
                # Tokens end by the time of day, which may be set while this waits.
                due = min(due, _TOKENS_AGAIN)
                again = due if again is None else min(again, due)
        except Waiting as reason:
            waiting, again = reason, reason.again
        except (ContainerError, VolumeError, ImageError) as error:
            waiting = Waiting(error.reason, str(error))
            again = None if isinstance(error, ContainerError) else 2.0
        except (CNIError, ZygoteError, OSError) as error:
            waiting, again = Waiting("CreatePodSandboxError", str(error)), 2.0
        if waiting is not None and waiting.reason not in _USUAL:
            self._reporter.tell(pod, "Warning", _EVENTS.get(waiting.reason, "Failed"), str(waiting))
        if self._reporter.report(pod, directory, waiting):
            network.tear_down(self._config, directory)
            return None
        return again

    def _warn_of_probes(self, pod: Object) -> None:
        for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
            for probe in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle"):
                if container.get(probe):
                    self._reporter.tell(
                        pod,
                        "Warning",
                        "NotSupported",
                        f"container {container['name']}: {probe} is not supported in standalone mode; the container "
                        "counts as ready while it is running",
                    )

    def _start_missing(self, pod: Object, directory: PodDir) -> float | None:
        """Start the containers that should run and don't; return seconds after which to look again."""
        spec = pod["spec"]
        policy = spec.get("restartPolicy") or "Always"
        for container in spec.get("initContainers") or []:
            observed = directory.observe(container["name"], self._zygote)
            sidecar = container.get("restartPolicy") == "Always"
            if observed.exit is not None and observed.exit["exitCode"] == 0 and not sidecar:
                continue
            if observed.running and sidecar:
                continue
            if observed.running or (observed.exit is not None and policy == "Never" and not sidecar):
                self._watch(directory.uid, observed)
                return None
            delay = self._start(pod, container, directory, observed)
            if not sidecar or delay:
                return delay
        todo = []
        for container in spec["containers"]:
            observed = directory.observe(container["name"], self._zygote)
            if observed.running:
                self._watch(directory.uid, observed)
            elif (
                observed.exit is None
                or policy == "Always"
                or (policy == "OnFailure" and observed.exit["exitCode"] != 0)
            ):
                todo.append((container, observed))
        delays = [self._start(pod, container, directory, observed) for container, observed in todo]
        return min((delay for delay in delays if delay is not None), default=None)

    def _start(self, pod: Object, container: Object, directory: PodDir, observed: Observed) -> float | None:
        """Start a container, or return the seconds until it may start."""
        # Only now: what runs may come from a configuration of an earlier version.
        containers.check(self._config, container, pod["spec"])
        if (pause := self._starter.pause(container, directory, observed)) > 0:
            return pause
        name = container["name"]
        try:
            self._starter.start(pod, container, directory, observed)
        except ZygoteError as error:
            if directory.observe(name, self._zygote).exit is None:
                raise
            self._reporter.tell(pod, "Warning", "Failed", f"container {name} could not be started: {error}")
            return None
        self._watch(directory.uid, directory.observe(name, self._zygote))
        self._recorder.event(pod, "Normal", "Started", f"Started container {name}")
        return None

    # --- ending ------------------------------------------------------------------------------------------------------

    def _terminate(self, pod: Object, directory: PodDir) -> float | None:
        metadata = pod["metadata"]
        grace = metadata.get("deletionGracePeriodSeconds")
        if grace is None:
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        running = [
            observed
            for observed in (directory.observe(name, self._zygote) for name in directory.containers())
            if observed.running
        ]
        left = 0.0
        for observed in running:
            state = observed.state or {}
            key = str(state.get("id"))
            # After a restart of this process its time goes on. Not by the deletion's stamp: clocks are set.
            first = directory.signalled(key)
            if first is None:
                first = time.monotonic()
                if grace > 0:
                    self._recorder.event(pod, "Normal", "Killing", f"Stopping container {key.split('/')[1]}")
                    send_signal(state, SIGTERM)
                directory.note_signal(key, first)
            self._watch(directory.uid, observed)
            rest = grace - (time.monotonic() - first)
            if rest <= 0 or grace == 0:
                send_signal(state, SIGKILL)
                rest = 0.5
            left = max(left, rest)
        if running:
            return left
        if directory.containers() and not is_ended(pod):
            self._reporter.report_end(pod, directory)
        self._tear_down(directory)
        try:
            self._client.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_period=0)
        except (NotFound, Conflict):
            log.debug("the Pod is already gone", extra={"pod": metadata["name"]})
        return None

    def _kill(self, directory: PodDir) -> None:
        """End a Pod's processes now."""
        for name in directory.containers():
            observed = directory.observe(name, self._zygote)
            if observed.running and observed.state is not None:
                send_signal(observed.state, SIGKILL)
                if not wait_end(observed.state, 10.0):
                    raise TimeoutError(f"container {name} of Pod {directory.uid} does not end")
                directory.observe(name, self._zygote)

    def _tear_down(self, directory: PodDir) -> None:
        network.tear_down(self._config, directory)
        self._volumes.remove(directory.uid, directory.path)
        self._cgroups.remove(directory.uid)
        directory.remove()
