# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the Pods bound to this node to what the API says, one level-triggered sync a Pod.

Every sync looks at the Pod object, the Pod's directory and the processes, and takes what is missing from there; it
remembers nothing that a restart could not find again.
"""

import logging
import os
import select
import threading
import time
from collections.abc import Hashable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from turtles.kube.client import MERGE, ApiError, Client, Conflict, NotFound
from turtles.kube.controller import run_workers
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import CONFIGMAP, POD, SECRET
from turtles.standalone.podrunner import cni, sandbox, status
from turtles.standalone.podrunner import container as containers
from turtles.standalone.podrunner.cgroup import Cgroups
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import ContainerError
from turtles.standalone.podrunner.credentials import Login, logins_for
from turtles.standalone.podrunner.files import read_json, write_json, write_text
from turtles.standalone.podrunner.images import ImageError, ImageStore, default_policy
from turtles.standalone.podrunner.node import memory_total
from turtles.standalone.podrunner.poddir import Observed, PodDir
from turtles.standalone.podrunner.pulls import Pulls
from turtles.standalone.podrunner.volumes import VolumeError, Volumes
from turtles.standalone.podrunner.zygote import now
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError, send_signal, wait_end

log = logging.getLogger(__name__)

Object = dict[str, Any]

#: Seconds between two looks at a Pod's tokens, at most.
_TOKENS_AGAIN = 60.0
_PULL_BACKOFF = (10.0, 300.0)
_RESTART_BACKOFF = (10.0, 300.0)


class _Waiting(Exception):
    """The Pod can't go on now: what its containers wait for, and seconds after which to try again (None: an event)."""

    def __init__(self, reason: str, message: str, again: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.again = reason, again


@dataclass
class _Memory:
    """What is handy to remember of a Pod, and can be lost."""

    #: By volume: what is pulled for it, and the pull.
    pulls: dict[str, tuple[Hashable, Future[str]]] = field(default_factory=dict)
    pull_failures: dict[str, tuple[int, float, str]] = field(default_factory=dict)
    #: When (monotonic) a container that ended may start again, by the key of the start that ended.
    restarts: dict[str, float] = field(default_factory=dict)
    watched: set[int] = field(default_factory=set)
    told: set[str] = field(default_factory=set)


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
        self._zygote, self._images, self._recorder, self._address = zygote, images, recorder, address
        self._volumes = Volumes(client, config.run_dir, config.node_name)
        self._cgroups = Cgroups(config.cgroup_parent)
        self._queue: WorkQueue[str] = WorkQueue("pods", first_delay=0.05)
        self._memory: dict[str, _Memory] = {}
        self._lock = threading.Lock()
        self._pulls = Pulls(images.attempt, config.max_parallel_image_pulls, config.max_image_pulls_per_namespace)
        self._networks = ThreadPoolExecutor(config.workers, "network")
        self._epoll = select.epoll()
        self._pidfds: dict[int, str] = {}
        pods.add_index("uid", lambda pod: [pod["metadata"]["uid"]])
        pods.add_handler(self._changed)

    def start(self) -> None:
        """Begin to work; the informer must be synchronised, or Pods that are not there yet would be taken for gone."""
        threading.Thread(target=self._watch_processes, name="processes", daemon=True).start()
        for directory in self._config.pods_dir.iterdir():
            self._queue.add(directory.name)
        run_workers(self._queue, self.sync, self._config.workers, "pods")

    def stop(self) -> None:
        """Stop working; Pods go on."""
        self._queue.close()
        self._pulls.stop()
        self._networks.shutdown(wait=False, cancel_futures=True)

    def images_in_use(self) -> set[str]:
        """Return the digests of image volumes of the Pods on this node."""
        found: set[str] = set()
        for directory in self._config.pods_dir.iterdir():
            found.update((read_json(directory / "images.json") or {}).values())
        return found

    def _changed(self, old: Object | None, new: Object | None) -> None:
        # A Pod may have been replaced by another one of its name while the watch was interrupted.
        for uid in {pod["metadata"]["uid"] for pod in (old, new) if pod is not None}:
            self._queue.add(uid)

    def _watch_processes(self) -> None:
        while True:
            for pidfd, _ in self._epoll.poll():
                self._epoll.unregister(pidfd)
                uid = self._pidfds.pop(pidfd)
                os.close(pidfd)
                self._queue.add(uid)

    def _watch(self, uid: str, memory: _Memory, observed: Observed) -> None:
        pid = observed.state["pid"] if observed.state is not None else 0
        if not observed.running or pid in memory.watched:
            return
        memory.watched.add(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._queue.add(uid)
            return
        self._pidfds[pidfd] = uid
        self._epoll.register(pidfd, select.EPOLLIN)

    # --- one Pod -----------------------------------------------------------------------------------------------------

    def sync(self, uid: str) -> float | None:
        """Bring one Pod a step further; return seconds after which to look again, or None."""
        found = self._pods.by_index("uid", uid)
        directory = PodDir(self._config.pods_dir, uid)
        with self._lock:
            memory = self._memory.setdefault(uid, _Memory())
        if not found or _is_ending(found[0]):
            self._pulls.leave(uid)
            memory.pulls.clear()
        if not found:
            self._kill(directory)
            self._tear_down(directory)
            with self._lock:
                self._memory.pop(uid, None)
            return None
        pod = found[0]
        if pod["metadata"].get("deletionTimestamp"):
            return self._terminate(pod, directory, memory)
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            self._kill(directory)
            self._tear_down_network(directory)
            return None
        return self._run(pod, directory, memory)

    def _run(self, pod: Object, directory: PodDir, memory: _Memory) -> float | None:
        again: float | None = None
        waiting: _Waiting | None = None
        try:
            for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
                for probe in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle"):
                    if container.get(probe):
                        self._tell(
                            pod,
                            memory,
                            "Warning",
                            "NotSupported",
                            f"container {container['name']}: {probe} is not supported in standalone mode; the "
                            "container counts as ready while it runs",
                        )
            directory.create(pod)
            again = self._start_missing(pod, directory, memory)
            due = self._volumes.renew(pod)
            if due is not None:
                # Tokens end by the time of day, which may be set while this waits.
                due = min(due, _TOKENS_AGAIN)
                again = due if again is None else min(again, due)
        except _Waiting as reason:
            waiting, again = reason, reason.again
        except (ContainerError, VolumeError, ImageError) as error:
            waiting = _Waiting(error.reason, str(error))
            again = None if isinstance(error, ContainerError) else 2.0
        except (cni.CNIError, ZygoteError, OSError) as error:
            waiting, again = _Waiting("CreatePodSandboxError", str(error)), 2.0
        if waiting is not None and waiting.reason not in ("ContainerCreating", "PodInitializing", "CrashLoopBackOff"):
            self._tell(pod, memory, "Warning", _EVENTS.get(waiting.reason, "Failed"), str(waiting))
        ended = self._report(pod, directory, memory, waiting)
        if ended:
            self._tear_down_network(directory)
            return None
        return again

    def _start_missing(self, pod: Object, directory: PodDir, memory: _Memory) -> float | None:
        """Start the containers that are to run and don't; return seconds after which to look again."""
        spec = pod["spec"]
        policy = spec.get("restartPolicy") or "Always"
        init = spec.get("initContainers") or []
        again: float | None = None
        for container in init:
            observed = directory.observe(container["name"], self._zygote)
            sidecar = container.get("restartPolicy") == "Always"
            if observed.exit is not None and observed.exit["exitCode"] == 0 and not sidecar:
                continue
            if observed.running and sidecar:
                continue
            if observed.running or (observed.exit is not None and policy == "Never" and not sidecar):
                self._watch(directory.uid, memory, observed)
                return None
            delay = self._start_one(pod, container, directory, memory, observed)
            if not sidecar or delay:
                return delay
        todo = []
        for container in spec["containers"]:
            observed = directory.observe(container["name"], self._zygote)
            if observed.running:
                self._watch(directory.uid, memory, observed)
            elif (
                observed.exit is None
                or policy == "Always"
                or (policy == "OnFailure" and observed.exit["exitCode"] != 0)
            ):
                todo.append((container, observed))
        for container, observed in todo:
            delay = self._start_one(pod, container, directory, memory, observed)
            if delay is not None:
                again = delay if again is None else min(again, delay)
        return again

    def _start_one(
        self, pod: Object, container: Object, directory: PodDir, memory: _Memory, observed: Observed
    ) -> float | None:
        name, uid = container["name"], directory.uid
        # Only now: what runs may come from a configuration of an earlier version.
        containers.check(self._config, container, pod["spec"])
        if observed.exit is not None:
            pause = min(_RESTART_BACKOFF[1], _RESTART_BACKOFF[0] * 2**observed.attempt)
            due = memory.restarts.setdefault(
                directory.key(name, observed.attempt), time.monotonic() + _rest_of(pause, observed.exit["finishedAt"])
            )
            if (left := due - time.monotonic()) > 0:
                return left
        own = directory.container(name)
        own.mkdir(parents=True, exist_ok=True)
        attempt = directory.next_attempt(name, observed) if observed.exit is not None else observed.attempt
        network = self._networks.submit(self._network, pod, directory)
        try:
            volumes = self._volumes.prepare(pod, directory.path, self._image_volumes(pod, directory, memory))
            environment = containers.environment(pod, container, lambda kind, key: self.fetch(pod, kind, key))
        finally:
            result = network.result()
        netns = None if pod["spec"].get("hostNetwork") else self._netns(uid)
        self._write_etc(pod, container, directory, result)
        log_file = own / "termination-log"
        log_file.write_bytes(b"")
        log_file.chmod(0o666)
        for entry in container.get("env") or []:
            reference = ((entry.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
            if reference in ("status.podIP", "status.podIPs"):
                environment[entry["name"]] = ",".join(cni.addresses(result)[: None if reference[-1] == "s" else 1])
        spec = containers.spec_of(
            self._config,
            pod,
            container,
            directory=own,
            files_dir=directory.path / "etc",
            volumes=volumes,
            env=environment,
            netns=netns,
            cgroup_procs=self._cgroups.create(uid, containers.limits(pod["spec"], self._config)),
            oom_score_adj=status.oom_score_adj(pod["spec"], container, memory_total()),
        )
        command = Path((container.get("command") or [spec.entry_point])[0]).name
        try:
            self._zygote.start(directory.key(name, attempt), own, command, spec)
        except ZygoteError as error:
            now_observed = directory.observe(name, self._zygote)
            if now_observed.exit is None:
                raise
            self._tell(pod, memory, "Warning", "Failed", f"container {name} could not be started: {error}")
            return None
        self._watch(uid, memory, directory.observe(name, self._zygote))
        self._recorder.event(pod, "Normal", "Started", f"Started container {name}")
        return None

    def fetch(self, pod: Object, kind: str, name: str) -> Object | None:
        """Return a Secret or ConfigMap of a Pod's namespace, None if there is none."""
        try:
            return self._client.get(SECRET if kind == "Secret" else CONFIGMAP, pod["metadata"]["namespace"], name)
        except NotFound:
            return None

    def _netns(self, uid: str) -> Path:
        return self._config.run_dir / "netns" / uid

    def _network(self, pod: Object, directory: PodDir) -> Object:
        """Make the Pod's network namespace and attach it; return the CNI result."""
        if pod["spec"].get("hostNetwork"):
            return {}
        netns = self._netns(directory.uid)
        attachment = cni.Attachment(self._config.cni_bin_dir, directory.cni_record)
        if not sandbox.is_mount(netns):
            # Left from before a reboot, or from a crash in between: take the old attachment back first.
            attachment.delete()
            sandbox.create_netns(netns)
        ports = [
            {
                "hostPort": port["hostPort"],
                "containerPort": port["containerPort"],
                "protocol": (port.get("protocol") or "TCP").lower(),
                "hostIP": port.get("hostIP") or "",
            }
            for container in pod["spec"]["containers"]
            for port in container.get("ports") or []
            if port.get("hostPort")
        ]
        metadata = pod["metadata"]
        return attachment.add(
            cni.load_network(self._config.cni_conf_dir),
            directory.uid,
            netns,
            "eth0",
            {
                "IgnoreUnknown": "1",
                "K8S_POD_NAMESPACE": metadata["namespace"],
                "K8S_POD_NAME": metadata["name"],
                "K8S_POD_INFRA_CONTAINER_ID": directory.uid,
                "K8S_POD_UID": metadata["uid"],
            },
            {"portMappings": ports},
        )

    def _write_etc(self, pod: Object, container: Object, directory: PodDir, result: Object) -> None:
        folder = directory.path / "etc"
        folder.mkdir(exist_ok=True)
        ip = next(iter(cni.addresses(result)), "" if not pod["spec"].get("hostNetwork") else self._address)
        systemd = Path("/run/systemd/resolve/resolv.conf")
        host = systemd if systemd.exists() else Path("/etc/resolv.conf")
        uid = containers.security(container, pod["spec"], "runAsUser") or 0
        gid = containers.security(container, pod["spec"], "runAsGroup") or 0
        passwd, group = containers.passwd_files(uid, gid)
        for name, text in (
            ("hosts", containers.hosts_file(pod, ip)),
            ("hostname", containers.hostname(pod) + "\n"),
            (
                "resolv.conf",
                containers.resolv_conf(pod, host.read_text() if host.exists() else "", result.get("dns") or {}),
            ),
            ("passwd", passwd),
            ("group", group),
        ):
            write_text(folder / name, text, 0o644)

    # --- images ------------------------------------------------------------------------------------------------------

    def _image_volumes(self, pod: Object, directory: PodDir, memory: _Memory) -> dict[str, Path]:
        """Return the content directories of the image volumes; start the pulls that are missing.

        :raises _Waiting: a pull is under way, or failed.
        """
        kept = read_json(directory.path / "images.json") or {}
        wanted = {
            volume["name"]: volume["image"]
            for volume in pod["spec"].get("volumes") or []
            if volume.get("image") is not None
        }
        for name, image in wanted.items():
            if name in kept and self._images.path(kept[name]).is_dir():
                continue
            kept[name] = self._image(pod, name, image, directory.uid, memory)
            write_json(directory.path / "images.json", kept)
        return {name: self._images.path(kept[name]) for name in wanted}

    def _image(self, pod: Object, name: str, image: Object, uid: str, memory: _Memory) -> str:
        reference = image.get("reference") or ""
        policy = image.get("pullPolicy") or default_policy(reference)
        logins = self._logins(pod, reference)
        under_way = memory.pulls.get(name)
        digest = None
        if under_way is None or not under_way[1].done():
            digest = self._images.present(reference, policy, logins)
        if digest is not None:
            if under_way is not None:
                # Another Pod's pull was faster.
                del memory.pulls[name]
                self._leave(uid, under_way[0], memory)
            return digest
        count, until, message = memory.pull_failures.get(name, (0, 0.0, ""))
        if time.monotonic() < until:
            raise _Waiting(
                "ImagePullBackOff", f"Back-off pulling image {reference!r}: {message}", until - time.monotonic()
            )
        if under_way is None:
            namespace = pod["metadata"]["namespace"]
            key: Hashable = (reference, policy, tuple(logins))
            pull = self._pulls.join(
                key, uid, namespace, lambda attempt: self._images.ensure(reference, policy, logins, attempt)
            )
            memory.pulls[name] = under_way = (key, pull)
            pull.add_done_callback(lambda _: self._queue.add(uid))
        key, pull = under_way
        if not pull.done():
            waits = self._pulls.describe(key, pod["metadata"]["namespace"])
            raise _Waiting("ContainerCreating", f"pulling image {reference}" + (f": {waits}" if waits else ""))
        del memory.pulls[name]
        try:
            return pull.result()
        except CancelledError as error:
            raise _Waiting("ContainerCreating", f"pulling image {reference}", 0.0) from error
        except ImageError as error:
            pause = min(_PULL_BACKOFF[1], _PULL_BACKOFF[0] * 2 ** min(count, 10))
            memory.pull_failures[name] = (count + 1, time.monotonic() + pause, str(error))
            raise _Waiting(error.reason, str(error), pause) from error

    def _leave(self, uid: str, key: Hashable, memory: _Memory) -> None:
        # Two volumes of a Pod may wait for the same one.
        if all(other != key for other, _ in memory.pulls.values()):
            self._pulls.leave(uid, key)

    def _logins(self, pod: Object, reference: str) -> list[Login]:
        """Return what a Pod's pull secrets have for an image; those that aren't there don't stop it, as ever."""
        secrets = [
            self.fetch(pod, "Secret", entry["name"])
            for entry in pod["spec"].get("imagePullSecrets") or []
            if entry.get("name")
        ]
        return logins_for(reference, [secret for secret in secrets if secret is not None])

    # --- status ------------------------------------------------------------------------------------------------------

    def _report(self, pod: Object, directory: PodDir, memory: _Memory, waiting: _Waiting | None) -> bool:
        """Write the Pod's status if it changed; say whether the Pod has ended for good."""
        spec = pod["spec"]
        old = pod.get("status") or {}
        init = [self._container_status(entry, directory, waiting, True) for entry in spec.get("initContainers") or []]
        main = [self._container_status(entry, directory, waiting, False) for entry in spec["containers"]]
        done = all(
            "terminated" in entry["state"] and entry["state"]["terminated"]["exitCode"] == 0
            for entry, container in zip(init, spec.get("initContainers") or [], strict=True)
            if container.get("restartPolicy") != "Always"
        )
        phase = status.phase(
            spec,
            {entry["name"]: entry["state"] for entry in main},
            {
                entry["name"]: entry["state"]
                for entry, container in zip(init, spec.get("initContainers") or [], strict=True)
                if container.get("restartPolicy") != "Always"
            },
        )
        result = cni.Attachment(self._config.cni_bin_dir, directory.cni_record).result() or {}
        addresses = [self._address] if spec.get("hostNetwork") else cni.addresses(result)
        new: Object = {
            **status.observed(pod),
            "phase": phase,
            "conditions": status.conditions(pod, phase, main, done, now()),
            "containerStatuses": main,
            "qosClass": status.qos_class(spec),
            "hostIP": self._address,
            "hostIPs": [{"ip": self._address}],
            "startTime": old.get("startTime") or now(),
        }
        if init:
            new["initContainerStatuses"] = init
        if addresses:
            new |= {"podIP": addresses[0], "podIPs": [{"ip": entry} for entry in addresses]}
        if status.differs(old, new):
            self._patch(pod, new)
        return phase in ("Succeeded", "Failed")

    def _patch(self, pod: Object, new: Object) -> None:
        metadata = pod["metadata"]
        body = {"metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}, "status": new}
        for _ in range(5):
            try:
                self._pods.observe(
                    self._client.patch(
                        POD, metadata["namespace"], metadata["name"], body, kind=MERGE, subresource="status"
                    )
                )
                return
            except Conflict:
                # Others own some conditions (readiness gates): merge ours into theirs again.
                pod = self._client.get(POD, metadata["namespace"], metadata["name"])
                if pod["metadata"]["uid"] != metadata["uid"]:
                    return
                statuses = new["containerStatuses"]
                initialized = any(
                    entry["type"] == "Initialized" and entry["status"] == "True" for entry in new["conditions"]
                )
                new["conditions"] = status.conditions(pod, new["phase"], statuses, initialized, now())
                body["metadata"]["resourceVersion"] = pod["metadata"]["resourceVersion"]
            except NotFound:
                return
        raise ApiError(409, "Conflict", "the Pod's status changes faster than it can be written")

    def _container_status(self, container: Object, directory: PodDir, waiting: _Waiting | None, init: bool) -> Object:
        name = container["name"]
        observed = directory.observe(name, self._zygote)
        ident = "turtles://" + directory.key(name, observed.attempt).replace("/", "-")
        state: Object
        if observed.running and observed.state is not None:
            state = {"running": {"startedAt": observed.state["startedAt"]}}
        elif observed.exit is not None:
            state = {"terminated": self._terminated(directory, name, observed.exit, ident)}
        else:
            reason = waiting.reason if waiting is not None else ("PodInitializing" if not init else "ContainerCreating")
            state = {"waiting": {"reason": reason}}
            if waiting is not None and str(waiting):
                state["waiting"]["message"] = str(waiting)
        last: Object = {}
        if observed.last_exit is not None:
            last = {"terminated": self._terminated(directory, name, observed.last_exit, ident)}
        running = "running" in state
        ready = state.get("terminated", {}).get("exitCode") == 0 if init and not running else running
        entry: Object = {
            "name": name,
            "image": container["image"],
            "imageID": f"preloaded://{container['image']}",
            "ready": ready,
            "started": running,
            "restartCount": observed.attempt,
            "state": state,
            "lastState": last,
        }
        if observed.state is not None:
            entry["containerID"] = ident
        return entry

    @staticmethod
    def _terminated(directory: PodDir, name: str, ended: Object, ident: str) -> Object:
        code = int(ended["exitCode"])
        result: Object = {
            "exitCode": code,
            "reason": ended.get("reason") or ("Completed" if code == 0 else "Error"),
            "startedAt": ended["startedAt"],
            "finishedAt": ended["finishedAt"],
            "containerID": ident,
        }
        if ended.get("signal"):
            result["signal"] = ended["signal"]
        message = ended.get("message") or directory.message(name, code)
        if message:
            result["message"] = message
        return result

    def _tell(self, pod: Object, memory: _Memory, kind: str, reason: str, message: str) -> None:
        if message not in memory.told:
            memory.told.add(message)
            self._recorder.event(pod, kind, reason, message)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _terminate(self, pod: Object, directory: PodDir, memory: _Memory) -> float | None:
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
            self._watch(directory.uid, memory, observed)
            rest = grace - (time.monotonic() - first)
            if rest <= 0 or grace == 0:
                send_signal(state, SIGKILL)
                rest = 0.5
            left = max(left, rest)
        if running:
            return left
        if directory.containers() and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            self._report_end(pod, directory)
        self._tear_down(directory)
        try:
            self._client.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_period=0)
        except (NotFound, Conflict):
            log.debug("the Pod is gone already", extra={"pod": metadata["name"]})
        return None

    def _report_end(self, pod: Object, directory: PodDir) -> None:
        """Write how a deleted Pod's containers ended: whoever waits for its result sees it before the Pod goes."""
        waiting = _Waiting("ContainerCreating", "")
        init = [
            self._container_status(entry, directory, waiting, True) for entry in pod["spec"].get("initContainers") or []
        ]
        main = [self._container_status(entry, directory, waiting, False) for entry in pod["spec"]["containers"]]
        codes = [entry["state"].get("terminated", {}).get("exitCode", 137) for entry in main]
        phase = "Failed" if any(codes) else "Succeeded"
        new: Object = {
            **status.observed(pod),
            "phase": phase,
            "conditions": status.conditions(pod, phase, main, True, now()),
            "containerStatuses": main,
        }
        if init:
            new["initContainerStatuses"] = init
        self._patch(pod, new)

    def _kill(self, directory: PodDir) -> None:
        """End a Pod's processes now."""
        for name in directory.containers():
            observed = directory.observe(name, self._zygote)
            if observed.running and observed.state is not None:
                send_signal(observed.state, SIGKILL)
                if not wait_end(observed.state, 10.0):
                    raise TimeoutError(f"container {name} of Pod {directory.uid} does not end")
                directory.observe(name, self._zygote)

    def _tear_down_network(self, directory: PodDir) -> None:
        tear_down_network(self._config, directory)

    def _tear_down(self, directory: PodDir) -> None:
        tear_down_network(self._config, directory)
        self._volumes.remove(directory.uid, directory.path)
        self._cgroups.remove(directory.uid)
        directory.remove()


def tear_down_network(config: Config, directory: PodDir) -> None:
    """Give a Pod's addresses and port mappings back and let go of its network namespace.

    :raises turtles.standalone.podrunner.cni.CNIError: a plugin failed; it can be repeated.
    """
    cni.Attachment(config.cni_bin_dir, directory.cni_record).delete()
    sandbox.delete_netns(config.run_dir / "netns" / directory.uid)


def _is_ending(pod: Object) -> bool:
    """Say whether no container of a Pod is going to be started any more."""
    phase = (pod.get("status") or {}).get("phase")
    return bool(pod["metadata"].get("deletionTimestamp")) or phase in ("Succeeded", "Failed")


def _rest_of(pause: float, since: str) -> float:
    """Return what is left of a pause, by the stamp at its beginning: never more than all, however clocks are set."""
    began = datetime.strptime(since[:19] + "Z", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return min(pause, max(0.0, pause - (datetime.now(UTC) - began).total_seconds()))


_EVENTS = {"FailedMount": "FailedMount", "CreatePodSandboxError": "FailedCreatePodSandBox"}
