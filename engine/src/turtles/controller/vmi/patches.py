# SPDX-License-Identifier: GPL-3.0-or-later
"""Patches of VirtualMachineInstances and their Pods. Pure."""

from turtles.api import labels
from turtles.api.changes import json_diff
from turtles.api.conditions import set_condition
from turtles.api.objects import Object, annotations_of
from turtles.api.phases import HANDED_OVER, phase_of


def vmi_patch(old: Object, new: Object) -> list[Object]:
    """Return the JSON patch that stores a plan's VMI; empty when nothing changed."""
    patch = json_diff(old, new, [("metadata", "labels"), ("metadata", "finalizers"), ("status", "*")])
    if not patch:
        return []
    test = []
    if phase_of(old) not in HANDED_OVER:
        # Nobody else writes yet, or any more: whatever changed meanwhile has to be looked at first.
        test.append({"op": "test", "path": "/metadata/resourceVersion", "value": old["metadata"]["resourceVersion"]})
    elif phase_of(new) != phase_of(old) and not any(op["path"] == "/status/phase" for op in patch):
        test.append({"op": "test", "path": "/status/phase", "value": phase_of(old)})
    return [*test, *patch]


def gate_patch(pod: Object, gate: tuple[str, str, str], now: str) -> list[Object]:
    """Return the JSON patch of the Pod's readiness gate; empty if it is so already.

    :param gate: its status, reason and message.
    """
    before = (pod.get("status") or {}).get("conditions")
    conditions = [dict(condition) for condition in before or ()]
    if not set_condition(conditions, labels.UNPAUSED_READINESS_GATE, *gate, now):
        return []
    after = {**pod, "status": {**(pod.get("status") or {}), "conditions": conditions}}
    return json_diff(pod, after, [("status", "conditions")])


def node_label_patch(pod: Object, node: str) -> list[Object]:
    """Return the JSON patch that puts the VMI's node on its Pod as a label; empty if it is there."""
    labels_ = pod["metadata"].get("labels")
    if labels_ is None or labels_.get(labels.NODE_NAME) == node:
        return []  # a Pod of ours always has labels
    return json_diff(
        pod, {"metadata": {"labels": {**labels_, labels.NODE_NAME: node}}}, [("metadata", "labels", labels.NODE_NAME)]
    )


def annotation_patch(pod: Object, name: str, text: str | None) -> list[Object]:
    """Return the JSON patch of a Pod's annotation; none if *text* is."""
    if text is None:
        return []
    annotations = {**annotations_of(pod), name: text}
    return json_diff(pod, {"metadata": {"annotations": annotations}}, [("metadata", "annotations", name)])
