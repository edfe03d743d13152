# SPDX-License-Identifier: GPL-3.0-or-later
"""Binds Pods to nodes: kube-scheduler's filters, as far as one machine needs them, and its words.

:func:`unfit` and :func:`choose` are pure; :class:`Scheduler` feeds them from informers and binds.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from turtles.api.objects import Object, annotations_of, labels_of
from turtles.api.quantity import parse
from turtles.api.times import now
from turtles.kube.client import Client, Conflict, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.manager import Controller, Trigger
from turtles.kube.resources import POD
from turtles.kube.writer import Writer
from turtles.log import about
from turtles.standalone import binding
from turtles.standalone.pods import has_ended
from turtles.standalone.well_known import DEFAULT_CLASS, NOT_READY, SELECTED_NODE

log = logging.getLogger(__name__)

_NAME = "default-scheduler"


class Unschedulable(Exception):
    """The Pod fits no node now; the text is the PodScheduled condition's message."""


def unfit(pod: Object, node: Object, others: Iterable[Object]) -> list[str]:
    """Return why a Pod can't be on a node, in kube-scheduler's words; [] if it can.

    :param others: the Pods that are on the node already, without those that have ended.
    """
    spec, node_spec = pod["spec"], node.get("spec") or {}
    if node_spec.get("unschedulable") and not tolerates(
        spec, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    taints = list(node_spec.get("taints") or [])
    if not _ready(node):
        taints.append({"key": NOT_READY, "effect": "NoSchedule"})
    for taint in taints:
        if taint.get("effect") != "PreferNoSchedule" and not tolerates(spec, taint):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not matches_node(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    others = list(others)
    if _host_ports(spec) & set().union(*(_host_ports(other["spec"]) for other in others)):
        return ["node(s) didn't have free ports for the requested pod ports"]
    return insufficient(spec, node, others)


def insufficient(spec: Object, node: Object, others: list[Object]) -> list[str]:
    """Return the resources a node has too little of, as kube-scheduler words them."""
    allocatable = {name: parse(value) for name, value in ((node.get("status") or {}).get("allocatable") or {}).items()}
    reasons = []
    if len(others) + 1 > allocatable.get("pods", Fraction(110)):
        reasons.append("Too many pods")
    used: dict[str, Fraction] = {}
    for other in others:
        for name, value in pod_requests(other["spec"]).items():
            used[name] = used.get(name, Fraction(0)) + value
    for name, value in sorted(pod_requests(spec).items()):
        if value > 0 and used.get(name, Fraction(0)) + value > allocatable.get(name, Fraction(0)):
            reasons.append(f"Insufficient {name}")
    return reasons


def pod_requests(spec: Object) -> dict[str, Fraction]:
    """Return what a Pod asks of a node: the larger of its containers' sum and its largest init container."""
    total: dict[str, Fraction] = {}
    for container in spec.get("containers") or []:
        for name, value in _requests(container).items():
            total[name] = total.get(name, Fraction(0)) + value
    for container in spec.get("initContainers") or []:
        for name, value in _requests(container).items():
            total[name] = max(total.get(name, Fraction(0)), value)
    for name, value in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, Fraction(0)) + parse(value)
    return total


def _requests(container: Object) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    merged = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return {name: parse(value) for name, value in merged.items()}


def tolerates(spec: Object, taint: Object) -> bool:
    """Say whether a Pod tolerates a taint."""
    for toleration in spec.get("tolerations") or []:
        if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
            continue
        if not toleration.get("key"):
            if toleration.get("operator") == "Exists":
                return True
            continue
        if toleration["key"] == taint["key"] and (
            toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
        ):
            return True
    return False


def matches_node(spec: Object, node: Object) -> bool:
    """Say whether nodeSelector and the required node affinity allow a node."""
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return affinity is None or matches_terms(affinity, node)


def matches_terms(selector: Object, node: Object) -> bool:
    """Say whether a node matches one of the terms of a NodeSelector; a term without any expression matches nothing."""
    labels = labels_of(node)
    fields = {"metadata.name": node["metadata"]["name"]}
    for term in selector.get("nodeSelectorTerms") or []:
        expressions = [(labels, entry) for entry in term.get("matchExpressions") or []]
        expressions += [(fields, entry) for entry in term.get("matchFields") or []]
        if expressions and all(_matches(values, entry) for values, entry in expressions):
            return True
    return False


def _matches(labels: Mapping[str, str], requirement: Object) -> bool:
    have, values = labels.get(requirement["key"]), requirement.get("values") or []
    operator = requirement["operator"]
    if operator == "Exists":
        return have is not None
    if operator == "DoesNotExist":
        return have is None
    if operator == "NotIn":
        return have not in values
    if have is None:
        return False
    if operator == "In":
        return have in values
    try:
        return int(have) > int(values[0]) if operator == "Gt" else int(have) < int(values[0])
    except (ValueError, IndexError):
        return False


def _ready(node: Object) -> bool:
    return any(
        entry["type"] == "Ready" and entry["status"] == "True"
        for entry in (node.get("status") or {}).get("conditions") or []
    )


def _host_ports(spec: Object) -> set[tuple[int, str]]:
    return {
        (port["hostPort"], port.get("protocol") or "TCP")
        for container in spec.get("containers") or []
        for port in container.get("ports") or []
        if port.get("hostPort")
    }


def choose(pod: Object, nodes: list[Object], on_node: dict[str, list[Object]]) -> str:
    """Return the name of the node a Pod goes to: of those that fit, the one with the fewest Pods.

    :param on_node: Pods by node name.
    :raises Unschedulable: none fits.
    """
    affinity = pod["spec"].get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        if (affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution"):
            raise Unschedulable(f"0/{len(nodes)} nodes are available: required {kind} is not supported here.")
    if not nodes:
        raise Unschedulable("no nodes available to schedule pods")
    reasons: Counter[str] = Counter()
    fit: list[str] = []
    for node in nodes:
        why = unfit(pod, node, on_node.get(node["metadata"]["name"], []))
        reasons.update(why)
        if not why:
            fit.append(node["metadata"]["name"])
    if not fit:
        text = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise Unschedulable(f"0/{len(nodes)} nodes are available: {text}.")
    return min(fit, key=lambda name: (len(on_node.get(name, [])), name))


def is_default(storage_class: Object) -> bool:
    """Say whether a StorageClass serves claims that name none."""
    annotations = annotations_of(storage_class)
    return bool(annotations.get(DEFAULT_CLASS) == "true")


class Scheduler:
    """Watches Pods and binds those without a node."""

    def __init__(
        self,
        client: Client,
        recorder: Recorder,
        pods: Informer,
        nodes: Informer,
        claims: Informer,
        volumes: Informer,
        classes: Informer,
    ) -> None:
        self._client, self._writer, self._recorder = client, Writer(client), recorder
        self._pods, self._nodes, self._claims, self._volumes, self._classes = pods, nodes, claims, volumes, classes
        # Bound, but not yet seen so by the informer: (uid → node, Pod).
        self._assumed: dict[str, tuple[str, Object]] = {}

    def controller(self) -> Controller:
        """Return what the manager runs."""
        triggers = [Trigger(self._pods, self._for_pod)]
        triggers += [Trigger(informer, self._unbound) for informer in (self._nodes, self._claims, self._volumes)]
        return Controller("scheduler", self.reconcile, triggers, reads=[self._classes])

    def _for_pod(self, old: Object | None, new: Object | None) -> list[Key]:
        if new is not None and not new["spec"].get("nodeName"):
            return [key_of(new)]
        return self._unbound() if new is None or has_ended(new) else []

    def _unbound(self, *_: Object | None) -> list[Key]:
        return [key_of(pod) for pod in self._pods.list() if not pod["spec"].get("nodeName")]

    def reconcile(self, key: Key) -> None:
        """Try to bind one Pod."""
        pod = self._pods.get(*key)
        if pod is None or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp") or has_ended(pod):
            return
        spec, uid = pod["spec"], pod["metadata"]["uid"]
        if uid in self._assumed or spec.get("schedulerName") not in (None, "", _NAME) or spec.get("schedulingGates"):
            return
        try:
            nodes, claims = self._nodes_for(pod)
            node = choose(pod, nodes, self._on_node())
        except Unschedulable as error:
            self._refuse(pod, str(error))
            return
        waiting = [
            claim
            for claim in claims
            if not (claim.get("spec") or {}).get("volumeName") or (claim.get("status") or {}).get("phase") != "Bound"
        ]
        for claim in waiting:
            if annotations_of(claim).get(SELECTED_NODE) != node:
                patch = {"metadata": {"annotations": {SELECTED_NODE: node}}}
                self._writer.patch(self._claims, claim, patch, unchanged=False)
        if waiting:
            # The provisioner's change of the claim brings this Pod back.
            return
        self._bind(pod, node)

    def _bind(self, pod: Object, node: str) -> None:
        metadata = pod["metadata"]
        try:
            self._client.create(
                POD,
                {
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": node},
                },
                namespace=metadata["namespace"],
                name=metadata["name"],
                subresource="binding",
            )
        except (NotFound, Conflict):
            log.debug("the Pod was gone or bound already", extra={"pod": metadata["name"]})
            return
        self._assumed[metadata["uid"]] = (node, pod)
        log.info("Pod bound", extra=about("pod", pod, node=node))
        self._recorder.event(
            pod,
            "Normal",
            "Scheduled",
            f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}",
        )

    def _on_node(self) -> dict[str, list[Object]]:
        by_node: dict[str, list[Object]] = {}
        alive = set()
        for pod in self._pods.list():
            uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
            if node:
                self._assumed.pop(uid, None)
            elif uid in self._assumed:
                node = self._assumed[uid][0]
            alive.add(uid)
            if node and not has_ended(pod):
                by_node.setdefault(node, []).append(pod)
        for uid in set(self._assumed) - alive:
            del self._assumed[uid]
        return by_node

    def _nodes_for(self, pod: Object) -> tuple[list[Object], list[Object]]:
        """Return the nodes that a Pod's claims allow, and the claims.

        :raises Unschedulable: a claim is missing, being deleted, or waits for something else than this Pod.
        """
        nodes = self._nodes.list()
        claims = []
        for volume in pod["spec"].get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name is None:
                continue
            before = f"0/{len(nodes)} nodes are available: "
            claim = self._claims.get(pod["metadata"]["namespace"], name)
            if claim is None:
                raise Unschedulable(f'{before}persistentvolumeclaim "{name}" not found.')
            if claim["metadata"].get("deletionTimestamp"):
                raise Unschedulable(f'{before}persistentvolumeclaim "{name}" is being deleted.')
            claims.append(claim)
            volume_name = claim["spec"].get("volumeName")
            if not volume_name:
                wanted = claim["spec"].get("storageClassName")
                storage_class = self._classes.get(None, wanted) if wanted else None
                if wanted is None:
                    # The default is written into the claim in a moment.
                    storage_class = next((entry for entry in self._classes.list() if is_default(entry)), None)
                if storage_class is None or storage_class.get("volumeBindingMode") != "WaitForFirstConsumer":
                    raise Unschedulable(f"{before}pod has unbound immediate PersistentVolumeClaims.")
                continue
            bound = self._volumes.get(None, volume_name)
            if bound is not None and binding.is_kept_from(bound, claim):
                raise Unschedulable(
                    f'{before}persistentvolumeclaim "{name}" names persistentvolume "{volume_name}", which belongs to '
                    f"{binding.holder(bound, claim)}."
                )
            required = (((bound or {}).get("spec") or {}).get("nodeAffinity") or {}).get("required")
            if required:
                fit = [node for node in nodes if matches_terms(required, node)]
                if nodes and not fit:
                    raise Unschedulable(f"{before}{len(nodes)} node(s) had volume node affinity conflict.")
                nodes = fit
        return nodes, claims

    def _refuse(self, pod: Object, message: str) -> None:
        status = pod.get("status") or {}
        conditions = status.get("conditions") or []
        old = next((entry for entry in conditions if entry["type"] == "PodScheduled"), None)
        if old is not None and old["status"] == "False" and old.get("message") == message:
            return
        stamp = now()
        new = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": stamp,
        }
        if pod["metadata"].get("generation"):
            new["observedGeneration"] = pod["metadata"]["generation"]
        if old is not None and old["status"] == "False":
            new["lastTransitionTime"] = old.get("lastTransitionTime", stamp)
        merged = [entry for entry in conditions if entry["type"] != "PodScheduled"] + [new]
        patch = {"status": {"phase": status.get("phase") or "Pending", "conditions": merged}}
        try:
            self._writer.patch(self._pods, pod, patch, subresource="status")
        except NotFound:
            return
        self._recorder.event(pod, "Warning", "FailedScheduling", message)
