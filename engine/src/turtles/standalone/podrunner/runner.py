# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the Pods bound to this node to what the API says, one level-triggered sync per Pod.

Every sync looks at the Pod object, the Pod's directory and the processes, and takes what is missing from there; it
remembers nothing that a restart could not find again.
"""

import logging
import time
from collections.abc import Collection
from signal import SIGKILL
from threading import Thread

from turtles.api.objects import Object
from turtles.kube.client import Client, Conflict, NotFound
from turtles.kube.controller import run_workers
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import CONFIGMAP, NETWORK, POD, SECRET
from turtles.log import about
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner import network, ordinary, probes, restart
from turtles.standalone.podrunner.cgroup import Cgroups
from turtles.standalone.podrunner.cni import CNIError
from turtles.standalone.podrunner.commands import Commands
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import ContainerError
from turtles.standalone.podrunner.image_reference import ImageError
from turtles.standalone.podrunner.image_volumes import ImageVolumes
from turtles.standalone.podrunner.images import ImageStore
from turtles.standalone.podrunner.network import DefinitionError, Networks
from turtles.standalone.podrunner.ordinary import Bundles
from turtles.standalone.podrunner.poddir import Observed, PodDir
from turtles.standalone.podrunner.processes import Processes
from turtles.standalone.podrunner.report import Reporter, is_ended
from turtles.standalone.podrunner.start import Starter
from turtles.standalone.podrunner.stopping import Stopper, signal_of
from turtles.standalone.podrunner.supervisor import Supervisor
from turtles.standalone.podrunner.volume_files import VolumeError
from turtles.standalone.podrunner.volumes import Volumes
from turtles.standalone.podrunner.waiting import Waiting
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError, send_signal, wait_end
from turtles.standalone.policy.enforcer import Policies

log = logging.getLogger(__name__)

#: What keeps a container from starting.
_REASONS = (Waiting, ContainerError, VolumeError, ImageError, CNIError, ZygoteError, OSError)

#: Seconds that stopping leaves to what has been begun, such as half a network.
_LAST_SECONDS = 5.0
#: Seconds between two looks at a Pod's tokens, at most.
_TOKENS_AGAIN = 60.0
#: Seconds until a network that isn't defined, or not well, is looked at again.
_DEFINITION_AGAIN = 5.0
#: Reasons of events about Pods that wait, by the reason of the waiting; "Failed" for others.
_EVENTS = {"FailedMount": "FailedMount", "CreatePodSandboxError": "FailedCreatePodSandBox"}
#: Reasons to wait that are no event.
_USUAL = ("ContainerCreating", "PodInitializing", "CrashLoopBackOff")


class Runner:
    """Runs the Pods of one node.

    :param pods: informer of Pods; those bound to this node count.
    :param address: the node's address, ``status.hostIP``.
    :param policies: enforces NetworkPolicies.
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
        policies: Policies | None = None,
    ) -> None:
        self._client, self._config, self._pods = client, config, pods
        self._zygote, self._recorder = zygote, recorder
        self._queue: WorkQueue[str] = WorkQueue("pods", first_delay=0.05)
        self._workers: list[Thread] = []
        self._volumes = Volumes(client, config.run_dir)
        self._cgroups = Cgroups(config.cgroup_parent)
        self._processes = Processes(self._queue.add)
        self._reporter = Reporter(client, config, pods, zygote, recorder, address)
        self._images = ImageVolumes(config, images, self.fetch, self._queue.add, self._reporter.tell)
        self._bundles = Bundles(config, self.fetch)
        self._networks = Networks(config, self._definition, policies)
        self._starter = Starter(
            config,
            zygote,
            self._volumes,
            self._images,
            self._bundles,
            self._cgroups,
            self.fetch,
            self._networks,
            address,
        )
        self.commands = Commands(config, zygote, self._bundles, self.fetch)
        self._supervisor = self._reporter.supervisor = Supervisor(
            self.commands, self._reporter.address, self._queue.add, self._reporter.tell
        )
        self._stopper = Stopper(recorder, self._supervisor.pre_stop, self._queue.add)
        pods.add_index("uid", lambda pod: [pod["metadata"]["uid"]] if self._is_here(pod) else [])
        pods.add_handler(self._changed)

    def start(self) -> None:
        """Start to work; the informer must be synchronised, or Pods that it doesn't know yet would count as deleted."""
        self._processes.start()
        for directory in self._config.pods_dir.iterdir():
            self._queue.add(directory.name)
        self._workers = run_workers(self._queue, self.sync, self._config.workers, "pods")

    def stop(self) -> None:
        """Stop working, when what has been begun is done or took too long; Pods keep running."""
        self._queue.close()
        self._images.stop()
        self._starter.stop()
        self._supervisor.stop()
        deadline = time.monotonic() + _LAST_SECONDS
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def images_in_use(self) -> set[str]:
        """Return the digests of images of the Pods on this node."""
        return self._images.in_use()

    def fetch(self, pod: Object, kind: str, name: str) -> Object | None:
        """Return a Secret or ConfigMap of a Pod's namespace, None if there is none."""
        return self._client.find(SECRET if kind == "Secret" else CONFIGMAP, pod["metadata"]["namespace"], name)

    def _definition(self, namespace: str, name: str) -> Object | None:
        return self._client.find(NETWORK, namespace, name)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        # A Pod may have been replaced by another one of its name while the watch was interrupted.
        for uid in {pod["metadata"]["uid"] for pod in (old, new) if pod is not None and self._is_here(pod)}:
            self._queue.add(uid)

    def _is_here(self, pod: Object) -> bool:
        return bool(pod["spec"].get("nodeName") == self._config.node_name)

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
            left = self._end(pod, directory)
            if left is None:
                network.tear_down(self._config, directory)
            return left
        return self._run(pod, directory)

    def _forget(self, uid: str) -> None:
        parts = (self._images, self._processes, self._reporter, self._starter, self._supervisor, self._networks)
        for part in parts:
            part.forget(uid)

    def _watch(self, uid: str, observed: Observed) -> None:
        if observed.running and observed.state is not None:
            self._processes.watch(uid, observed.state["pid"])

    # --- running -----------------------------------------------------------------------------------------------------

    def _run(self, pod: Object, directory: PodDir) -> float | None:
        again: float | None = None
        waits: dict[str, Waiting] = {}
        try:
            self._warn(pod)
            if directory.create(pod):
                log.info("Pod arrived", extra=about("pod", pod))
            again = _sooner(self._advance(pod, directory, waits), self._follow_networks(pod, directory))
            due = self._volumes.renew(pod)
            if due is not None:
                # Tokens end by the time of day, which may be set while this waits.
                again = _sooner(again, min(due, _TOKENS_AGAIN))
        except _REASONS as error:
            waits[""] = _waiting(error)
            again = waits[""].again
        for waiting in waits.values():
            if waiting.reason not in _USUAL:
                self._reporter.tell(pod, "Warning", _EVENTS.get(waiting.reason, "Failed"), str(waiting))
        ended = self._reporter.report(pod, directory, waits)
        return 0.0 if ended else again

    def _follow_networks(self, pod: Object, directory: PodDir) -> float | None:
        """Attach a running Pod as its annotation says now; return seconds after which to try again."""
        if not directory.has_started():
            return None
        try:
            self._networks.follow(pod, directory)
        except CNIError as error:
            self._reporter.tell(pod, "Warning", "FailedAttachNetwork", f"{error} (trying again)")
            return _DEFINITION_AGAIN
        return None

    def _warn(self, pod: Object) -> None:
        """Tell what containers of preloaded images ask for in vain."""
        for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
            if ordinary.is_ordinary(self._config, container):
                continue
            for field in probes.unsupported(container):
                self._reporter.tell(
                    pod,
                    "Warning",
                    "NotSupported",
                    f"container {container['name']}: {field} is not supported in standalone mode; the Pod's own "
                    "containers and ports can be asked",
                )

    def _advance(self, pod: Object, directory: PodDir, waits: dict[str, Waiting]) -> float | None:
        """Start the containers that should run and don't, and look after the others.

        Return seconds after which to look again.

        :param waits: gets why containers don't start.
        """
        spec = pod["spec"]
        policy = spec.get("restartPolicy") or "Always"
        again: float | None = None
        for container in spec.get("initContainers") or []:
            observed = directory.observe(container["name"], self._zygote)
            sidecar = container.get("restartPolicy") == "Always"
            if observed.exit is not None and observed.exit["exitCode"] == 0 and not sidecar:
                continue
            if observed.running:
                again = _sooner(again, self._care(pod, container, directory, observed))
                if sidecar and self._supervisor.is_started(observed):
                    continue
                return again
            if observed.exit is not None and policy == "Never" and not sidecar:
                return again
            again = _sooner(again, self._start(pod, container, directory, observed, waits))
            now = directory.observe(container["name"], self._zygote)
            if not (sidecar and now.running and self._supervisor.is_started(now)):
                return again
        for container in spec["containers"]:
            name = container["name"]
            observed = directory.observe(name, self._zygote)
            if observed.running:
                again = _sooner(again, self._care(pod, container, directory, observed))
            elif observed.exit is None or restart.restarts(policy, observed.exit["exitCode"]):
                try:
                    again = _sooner(again, self._start(pod, container, directory, observed, waits))
                except _REASONS as error:
                    waits[name] = _waiting(error)
                    again = _sooner(again, waits[name].again)
        return again

    def _care(self, pod: Object, container: Object, directory: PodDir, observed: Observed) -> float | None:
        """Look after a running container; return seconds after which to look again."""
        self._watch(directory.uid, observed)
        self._supervisor.watch(pod, container, directory, observed, fresh=False)
        doom = self._supervisor.doom(observed)
        if doom is None and directory.signalled(str((observed.state or {})["id"])) is None:
            return None
        if doom is not None:
            self._reporter.tell(pod, "Normal" if doom.reason == "Killing" else "Warning", doom.reason, doom.message)
        grace = doom.grace if doom is not None and doom.grace is not None else _grace(pod)
        return self._stop(pod, container, directory, observed, grace)

    def _stop(self, pod: Object, container: Object, directory: PodDir, observed: Observed, grace: float) -> float:
        number = signal_of(container, self._images.stop_signal(container["name"], directory))
        return self._stopper.stop(pod, container, directory, observed, grace, number)

    def _start(
        self, pod: Object, container: Object, directory: PodDir, observed: Observed, waits: dict[str, Waiting]
    ) -> float | None:
        """Start a container, or return the seconds until it may start."""
        name = container["name"]
        # Only now: what runs may come from a configuration of an earlier version.
        containers.check(container, pod["spec"])
        check = ordinary.check if ordinary.is_ordinary(self._config, container) else containers.check_preloaded
        check(container, pod["spec"])
        if (pause := self._starter.pause(container, directory, observed)) > 0:
            waits[name] = Waiting("CrashLoopBackOff", restart.describe(pod, name, observed.delay), pause)
            self._reporter.tell(pod, "Warning", "BackOff", restart.event(pod, name))
            return pause
        try:
            self._starter.start(pod, container, directory, observed)
        except ZygoteError as error:
            if directory.observe(name, self._zygote).exit is None:
                raise
            self._reporter.tell(pod, "Warning", "Failed", f"container {name} could not be started: {error}")
            return 0.0
        started = directory.observe(name, self._zygote)
        self._watch(directory.uid, started)
        log.info("container started", extra=about("pod", pod, container=name))
        self._recorder.event(pod, "Normal", "Started", f"Started container {name}")
        if started.running:
            self._supervisor.watch(pod, container, directory, started, fresh=True)
        return 0.0 if started.exit is not None else None

    # --- ending ------------------------------------------------------------------------------------------------------

    def _terminate(self, pod: Object, directory: PodDir) -> float | None:
        metadata, spec = pod["metadata"], pod["spec"]
        grace = metadata.get("deletionGracePeriodSeconds")
        if grace is None:
            grace = _grace(pod)
        left = self._stop_running(pod, directory, grace, spec["containers"])
        if left is None:
            # Those that serve the others end after them.
            left = self._stop_running(pod, directory, grace, spec.get("initContainers") or [])
        if left is not None:
            return left
        if directory.containers() and not is_ended(pod):
            self._reporter.report_end(pod, directory)
        self._tear_down(directory)
        try:
            self._client.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_period=0)
        except (NotFound, Conflict):
            log.debug("the Pod is already gone", extra={"pod": metadata["name"]})
        return None

    def _stop_running(self, pod: Object, directory: PodDir, grace: float, containers: list[Object]) -> float | None:
        """Stop those of some containers that run; return seconds until the next step, None if none does."""
        left: float | None = None
        for container in containers:
            observed = directory.observe(container["name"], self._zygote)
            if observed.running:
                self._watch(directory.uid, observed)
                left = _sooner(left, self._stop(pod, container, directory, observed, grace))
        return left

    def _end(self, pod: Object, directory: PodDir) -> float | None:
        """End what is left of a Pod that has ended: sidecars in their time, everything else now."""
        sidecars = [one for one in pod["spec"].get("initContainers") or [] if one.get("restartPolicy") == "Always"]
        names = {one["name"] for one in sidecars}
        self._kill(directory, names)
        return self._stop_running(pod, directory, _grace(pod), sidecars)

    def _kill(self, directory: PodDir, spared: Collection[str] = ()) -> None:
        """End a Pod's processes now, but for those of some containers."""
        for name in [name for name in directory.containers() if name not in spared]:
            observed = directory.observe(name, self._zygote)
            if observed.running and observed.state is not None:
                send_signal(observed.state, SIGKILL)
                if not wait_end(observed.state, 10.0):
                    raise TimeoutError(f"container {name} of Pod {directory.uid} does not end")
                directory.observe(name, self._zygote)

    def _tear_down(self, directory: PodDir) -> None:
        network.tear_down(self._config, directory)
        self._bundles.remove(directory.uid)
        self._volumes.remove(directory.uid, directory.path)
        self._cgroups.remove(directory.uid)
        directory.remove()


def _waiting(error: BaseException) -> Waiting:
    """Return as what the status shows an error of :data:`_REASONS`, and when to try again."""
    if isinstance(error, Waiting):
        return error
    if isinstance(error, ContainerError):
        # What it refers to may be created, which nobody tells.
        return Waiting(error.reason, str(error), 10.0)
    if isinstance(error, DefinitionError):
        return Waiting("CreatePodSandboxError", str(error), _DEFINITION_AGAIN)
    if isinstance(error, VolumeError | ImageError):
        return Waiting(error.reason, str(error), 2.0)
    return Waiting("CreatePodSandboxError", str(error), 2.0)


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _grace(pod: Object) -> float:
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30))
