# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the status of Pods, and their events."""

import logging
from collections.abc import Mapping

from turtles.api.objects import Object, annotations_of
from turtles.api.times import now
from turtles.kube.client import ApiError, Client, Conflict, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.resources import POD
from turtles.kube.writer import Writer
from turtles.log import about
from turtles.standalone import attachments
from turtles.standalone.podrunner import network, status
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.container import says_log
from turtles.standalone.podrunner.credentials import repository_of
from turtles.standalone.podrunner.image_reference import is_local
from turtles.standalone.podrunner.image_volumes import ImageVolumes
from turtles.standalone.podrunner.poddir import PodDir
from turtles.standalone.podrunner.supervisor import Supervisor
from turtles.standalone.podrunner.waiting import Waiting
from turtles.standalone.podrunner.zygote_client import ZygoteClient
from turtles.standalone.pods import FINAL_PHASES, has_ended

log = logging.getLogger(__name__)


#: Different events about a Pod.
_MAX_TOLD = 100

#: Why containers don't run, by their names; "" is for all that are not named.
Waits = Mapping[str, Waiting]


def is_ended(pod: Object) -> bool:
    """Say whether a Pod's containers have ended for good, according to its status."""
    return has_ended(pod)


class Reporter:
    """Reports on the Pods of a node.

    :param pods: informer of these Pods.
    :param address: the node's address, ``status.hostIP``.
    """

    #: Knows which containers are ready; set once, since it reports events itself.
    supervisor: Supervisor

    def __init__(
        self, client: Client, config: Config, pods: Informer, zygote: ZygoteClient, recorder: Recorder, address: str
    ) -> None:
        self._client, self._writer, self._config = client, Writer(client), config
        self._pods, self._zygote = pods, zygote
        self._recorder, self._address = recorder, address
        #: Messages of events by uid of their Pod; can be lost.
        self._told: dict[str, set[str]] = {}

    def address(self, pod: Object, directory: PodDir) -> str:
        """Return a Pod's address, "" if it has none."""
        if pod["spec"].get("hostNetwork"):
            return self._address
        return next(iter(network.addresses(self._config, directory)), "")

    def report(self, pod: Object, directory: PodDir, waits: Waits) -> bool:
        """Write the Pod's status if it changed; say whether the Pod has ended for good.

        :param waits: why containers that don't run don't.
        """
        spec = pod["spec"]
        old = pod.get("status") or {}
        init = self._statuses(pod, directory, waits, init=True)
        main = self._statuses(pod, directory, waits, init=False)
        states = {
            entry["name"]: entry["state"]
            for entry, container in zip(init, spec.get("initContainers") or [], strict=True)
            if container.get("restartPolicy") != "Always"
        }
        done = all(state.get("terminated", {}).get("exitCode") == 0 for state in states.values())
        phase = status.phase(spec, {entry["name"]: entry["state"] for entry in main}, states)
        if phase not in FINAL_PHASES:
            init, main = ([_looping(entry, waits) for entry in entries] for entries in (init, main))
        addresses = [self._address] if spec.get("hostNetwork") else network.addresses(self._config, directory)
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
        annotations = self._annotations(pod, directory)
        if annotations or status.differs(old, new):
            self._patch(pod, new, annotations)
        return phase in FINAL_PHASES

    def report_end(self, pod: Object, directory: PodDir) -> None:
        """Write how a deleted Pod's containers ended, for those who wait for its result, before the Pod is gone."""
        waits = {"": Waiting("ContainerCreating", "")}
        init = self._statuses(pod, directory, waits, init=True)
        main = self._statuses(pod, directory, waits, init=False)
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

    def tell(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """Create an event about a Pod, once per message; what its containers say is in some, so there is an end."""
        told = self._told.setdefault(pod["metadata"]["uid"], set())
        if message not in told and len(told) < _MAX_TOLD:
            told.add(message)
            self._recorder.event(pod, kind, reason, message)

    def forget(self, uid: str) -> None:
        """Forget a Pod."""
        self._told.pop(uid, None)

    def _annotations(self, pod: Object, directory: PodDir) -> dict[str, str]:
        """Return annotations that are to change: which networks the Pod is attached to."""
        before = annotations_of(pod)
        networks = network.status(self._config, directory, before)
        return {} if networks in (None, before.get(attachments.STATUS)) else {attachments.STATUS: str(networks)}

    def _patch(self, pod: Object, new: Object, annotations: Mapping[str, str] = {}) -> None:
        metadata = pod["metadata"]
        body: Object = {"metadata": {"annotations": dict(annotations)} if annotations else {}, "status": new}
        for _ in range(5):
            try:
                self._writer.patch(self._pods, pod, body, subresource="status")
                if new["phase"] != (pod.get("status") or {}).get("phase"):
                    log.info("phase changed", extra=about("pod", pod, phase=new["phase"]))
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
            except NotFound:
                return
        raise ApiError(409, "Conflict", "the Pod's status changes faster than it can be written")

    def _statuses(self, pod: Object, directory: PodDir, waits: Waits, *, init: bool) -> list[Object]:
        containers = pod["spec"].get("initContainers" if init else "containers") or []
        return [self._container_status(container, directory, waits, init) for container in containers]

    def _container_status(self, container: Object, directory: PodDir, waits: Waits, init: bool) -> Object:
        name = container["name"]
        observed = directory.observe(name, self._zygote)
        digest = ImageVolumes.digest_of_container(name, directory)
        ident = f"turtles://{_flat(directory.key(name, observed.attempt))}"
        state: Object
        if observed.running and observed.state is not None:
            state = {"running": {"startedAt": observed.state["startedAt"]}}
        elif observed.exit is not None:
            state = {"terminated": self._terminated(directory, container, observed.exit, ident, digest)}
        else:
            waiting = waits.get(name, waits.get(""))
            reason = waiting.reason if waiting is not None else ("PodInitializing" if not init else "ContainerCreating")
            state = {"waiting": {"reason": reason}}
            if waiting is not None and str(waiting):
                state["waiting"]["message"] = str(waiting)
        last: Object = {}
        if observed.last_exit is not None:
            before = f"turtles://{_flat(directory.key(name, max(0, observed.attempt - 1)))}"
            last = {"terminated": self._terminated(directory, container, observed.last_exit, before, digest, last=True)}
        running = "running" in state
        sidecar = container.get("restartPolicy") == "Always"
        ready = running and self.supervisor.is_ready(observed)
        if init and not sidecar:
            ready = running or state.get("terminated", {}).get("exitCode") == 0
        entry: Object = {
            "name": name,
            "image": container["image"],
            "imageID": self._image_id(container, digest, observed.state is not None),
            "ready": ready,
            "started": running and self.supervisor.is_started(observed),
            "restartCount": observed.attempt,
            "state": state,
            "lastState": last,
        }
        if observed.state is not None:
            entry["containerID"] = ident
        return entry

    @staticmethod
    def _image_id(container: Object, digest: str, started: bool) -> str:
        image = container["image"]
        if digest:
            return digest if is_local(image) else f"{repository_of(image)}@{digest}"
        # What runs may have been preloaded by an earlier version, whose images aren't known any more.
        return f"preloaded://{image}" if started else ""

    @staticmethod
    def _terminated(
        directory: PodDir, container: Object, ended: Object, ident: str, digest: str, *, last: bool = False
    ) -> Object:
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
        message = ended.get("message")
        if not message and not last:
            message = directory.message(container["name"], says_log(container, code, not digest))
        if message:
            result["message"] = message
        return result


def _flat(key: str) -> str:
    return key.replace("/", "-")


def _looping(entry: Object, waits: Waits) -> Object:
    """Return the status of a container that has ended as that of one that waits for its next start, if it does."""
    waiting, ended = waits.get(entry["name"]), entry["state"].get("terminated")
    if waiting is None or ended is None:
        return entry
    state = {"waiting": {"reason": waiting.reason, "message": str(waiting)}}
    return entry | {"state": state, "lastState": {"terminated": ended}, "ready": False}
