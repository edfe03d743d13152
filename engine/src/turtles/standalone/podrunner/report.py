# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the status of Pods, and their events."""

from turtles.api.objects import Object
from turtles.kube.client import MERGE, ApiError, Client, Conflict, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer
from turtles.kube.resources import POD
from turtles.standalone.podrunner import network, status
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.poddir import PodDir
from turtles.standalone.podrunner.waiting import Waiting
from turtles.standalone.podrunner.zygote import now
from turtles.standalone.podrunner.zygote_client import ZygoteClient

_ENDED = ("Succeeded", "Failed")


def is_ended(pod: Object) -> bool:
    """Say whether a Pod's containers have ended for good, according to its status."""
    return (pod.get("status") or {}).get("phase") in _ENDED


class Reporter:
    """Reports on the Pods of a node.

    :param pods: informer of these Pods.
    :param address: the node's address, ``status.hostIP``.
    """

    def __init__(
        self, client: Client, config: Config, pods: Informer, zygote: ZygoteClient, recorder: Recorder, address: str
    ) -> None:
        self._client, self._config, self._pods, self._zygote = client, config, pods, zygote
        self._recorder, self._address = recorder, address
        #: Messages of events by uid of their Pod; can be lost.
        self._told: dict[str, set[str]] = {}

    def report(self, pod: Object, directory: PodDir, waiting: Waiting | None) -> bool:
        """Write the Pod's status if it changed; say whether the Pod has ended for good.

        :param waiting: why containers that don't run don't.
        """
        spec = pod["spec"]
        old = pod.get("status") or {}
        init = self._statuses(pod, directory, waiting, init=True)
        main = self._statuses(pod, directory, waiting, init=False)
        states = {
            entry["name"]: entry["state"]
            for entry, container in zip(init, spec.get("initContainers") or [], strict=True)
            if container.get("restartPolicy") != "Always"
        }
        done = all(state.get("terminated", {}).get("exitCode") == 0 for state in states.values())
        phase = status.phase(spec, {entry["name"]: entry["state"] for entry in main}, states)
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
        if status.differs(old, new):
            self._patch(pod, new)
        return phase in _ENDED

    def report_end(self, pod: Object, directory: PodDir) -> None:
        """Write how a deleted Pod's containers ended, for those who wait for its result, before the Pod is gone."""
        waiting = Waiting("ContainerCreating", "")
        init = self._statuses(pod, directory, waiting, init=True)
        main = self._statuses(pod, directory, waiting, init=False)
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
        """Create an event about a Pod, once per message."""
        told = self._told.setdefault(pod["metadata"]["uid"], set())
        if message not in told:
            told.add(message)
            self._recorder.event(pod, kind, reason, message)

    def forget(self, uid: str) -> None:
        """Forget a Pod."""
        self._told.pop(uid, None)

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

    def _statuses(self, pod: Object, directory: PodDir, waiting: Waiting | None, *, init: bool) -> list[Object]:
        containers = pod["spec"].get("initContainers" if init else "containers") or []
        return [self._container_status(container, directory, waiting, init) for container in containers]

    def _container_status(self, container: Object, directory: PodDir, waiting: Waiting | None, init: bool) -> Object:
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
