# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresource binding: a Pod gets its node."""

from typing import Any, NamedTuple

from turtles.api.times import now
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.resource.get import get_settled
from turtles.standalone.apiserver.resource.resources import ATTEMPTS, Resources
from turtles.standalone.apiserver.storage.store import Stale
from turtles.standalone.apiserver.wire.errors import Object, bad_request, conflict, invalid, not_supported, required

_RESOURCE = "pods/binding"


class _Binding(NamedTuple):
    node: str
    uid: str
    annotations: dict[str, str]


async def bind(resources: Resources, context: Context, body: Any) -> None:
    """Bind a Pod to the node that a Binding names; its annotations become the Pod's.

    Source: assignPod in Kubernetes' pkg/registry/core/pod/storage.

    :raises StatusError: 404 if there is no such Pod, 409 if it is bound, ends or is another one than the Binding means,
        400 and 422 for what is no Binding.
    """
    binding = _parse(context, body)
    for _ in range(ATTEMPTS):
        entry = await get_settled(resources, context)
        pod = entry.object()
        _check(context, binding, pod)
        if context.dry_run:
            return
        _assign(pod, binding)
        try:
            await resources.store.put(context.key, pod, entry.version)
            return
        except Stale:
            continue
    raise conflict("", _RESOURCE, context.name)


def _parse(context: Context, body: Any) -> _Binding:
    target = body.get("target") if isinstance(body, dict) else None
    node = target.get("name") if isinstance(target, dict) else None
    if not isinstance(target, dict) or not isinstance(node, str) or not node:
        raise invalid("", "Binding", context.name, [required("target.name")])
    if target.get("kind") not in (None, "", "Node"):
        cause = not_supported("target.kind", target["kind"], ["Node", "<empty>"])
        raise invalid("", "Binding", context.name, [cause])
    meta = body.get("metadata")
    if not isinstance(meta, dict):
        return _Binding(node, "", {})
    annotations = meta.get("annotations")
    if not isinstance(annotations, dict):
        annotations = {}
    if not all(isinstance(one, str) for one in annotations.values()):
        raise bad_request("Binding.metadata.annotations must be texts")
    if meta.get("name") not in (None, "", context.name):
        raise bad_request("name in URL does not match name in Binding object")
    return _Binding(node, meta.get("uid") or "", annotations)


def _check(context: Context, binding: _Binding, pod: Object) -> None:
    meta, assigned = pod["metadata"], pod["spec"].get("nodeName")
    why = ""
    if binding.uid and binding.uid != meta["uid"]:
        why = f"Precondition failed: UID in precondition: {binding.uid}, UID in object meta: {meta['uid']}"
    elif meta.get("deletionTimestamp"):
        why = f"pod {context.name} is being deleted, cannot be assigned to a host"
    elif assigned:
        why = f'pod {context.name} is already assigned to node "{assigned}"'
    if why:
        raise conflict("", _RESOURCE, context.name, why)


def _assign(pod: Object, binding: _Binding) -> None:
    pod["spec"]["nodeName"] = binding.node
    conditions = pod["status"].setdefault("conditions", [])
    conditions[:] = [one for one in conditions if one.get("type") != "PodScheduled"]
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
    conditions.append({**condition, "lastTransitionTime": now()})
    if binding.annotations:
        pod["metadata"].setdefault("annotations", {}).update(binding.annotations)
