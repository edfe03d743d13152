# SPDX-License-Identifier: GPL-3.0-or-later
"""What Nodes and Namespaces must look like.

Source: Kubernetes' pkg/apis/core/validation.
"""

import ipaddress

from turtles.standalone.apiserver.schema.metadata import finalizer_causes, qualified_causes, value_causes
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
)

_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]


def validate_node(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a Node."""
    spec: Object = obj["spec"]
    causes = _taints(spec.get("taints") or [])
    if old is None:
        return causes + _networks(spec.get("podCIDRs") or [])
    before: Object = old["spec"]
    for field, called in (("podCIDRs", "podCIDR"), ("providerID", "providerID")):
        if before.get(field) and before[field] != spec.get(field):
            text = f'node updates may not change {called} except from "" to valid'
            causes.append(field_forbidden(f"spec.{field}", text))
    if _fixed(spec, before) != _fixed(before, before):
        causes.append(field_forbidden("[]", "node updates may only change labels, taints, or capacity"))
    return causes


def _fixed(spec: Object, before: Object) -> Object:
    """Return what an update may not change; some fields may be set once."""
    free = {"unschedulable", "taints"}
    if not before.get("podCIDRs"):
        free |= {"podCIDR", "podCIDRs"}
    if not before.get("providerID"):
        free.add("providerID")
    return {name: value for name, value in spec.items() if name not in free}


def _taints(taints: list[Object]) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        path, key, effect = f"metadata.taints[{index}]", taint.get("key") or "", taint.get("effect") or ""
        causes += qualified_causes(f"{path}.key", key)
        causes += value_causes(taint.get("value") or "", f"{path}.value")
        if effect not in _EFFECTS:
            causes.append(not_supported(f"{path}.effect", effect, _EFFECTS))
        if (key, effect) in seen:
            found = duplicate(path, taint)
            found.message += ": taints must be unique by key and effect pair"
            causes.append(found)
        seen.add((key, effect))
    return causes


def _networks(networks: list[str]) -> list[Cause]:
    causes, families = [], []
    for index, text in enumerate(networks):
        try:
            families.append(ipaddress.ip_network(text, strict=False).version)
        except ValueError:
            causes.append(invalid_value(f"spec.podCIDRs[{index}]", networks, "must be valid CIDR"))
    if not causes and len(families) != len(set(families)):
        text = "may specify no more than one CIDR for each IP family"
        causes.append(invalid_value("spec.podCIDRs", networks, text))
    return causes


def validate_namespace(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a Namespace."""
    causes: list[Cause] = []
    for index, one in enumerate(obj["spec"].get("finalizers") or ()):
        causes += finalizer_causes(one, f"spec.finalizers[{index}]")
    if old is None:
        return causes
    ending = bool(obj["metadata"].get("deletionTimestamp"))
    phase, wanted = obj["status"].get("phase"), "Terminating" if ending else "Active"
    if phase != wanted:
        is_so = "not empty" if ending else "empty"
        text = f"may only be '{wanted}' if `deletionTimestamp` is {is_so}"
        causes.append(invalid_value("status.Phase", phase, text))
    return causes
