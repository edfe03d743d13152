# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes.

Source: Kubernetes' pkg/apis/core/validation.
"""

import ipaddress
from typing import Any

from turtles.standalone.apiserver.builtin.columns import (
    AGE,
    NAME,
    as_list,
    as_map,
    column,
    conditions_of,
    created,
    name_of,
    wide,
)
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import qualified_causes, value_causes
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
)

_INFO = "@core.v1.NodeSystemInfo."
_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Nodes(Strategy):
    """Nodes. Who registers one knows its status."""

    takes_status = True
    columns = (
        NAME,
        column("Status", "The status of the node"),
        column("Roles", "The roles of the node"),
        AGE,
        column("Version", f"{_INFO}kubeletVersion"),
        wide("Internal-IP", "@core.v1.NodeStatus.addresses"),
        wide("External-IP", "@core.v1.NodeStatus.addresses"),
        wide("OS-Image", f"{_INFO}osImage"),
        wide("Kernel-Version", f"{_INFO}kernelVersion"),
        wide("Container-Runtime", f"{_INFO}containerRuntimeVersion"),
    )

    def cells(self, obj: Object) -> list[Any]:
        status, info = as_map(obj.get("status")), as_map(as_map(obj.get("status")).get("nodeInfo"))
        ready = conditions_of(obj).get("Ready")
        state = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
        if as_map(obj.get("spec")).get("unschedulable"):
            state += ",SchedulingDisabled"
        labels, prefix = as_map(obj["metadata"].get("labels")), "node-role.kubernetes.io/"
        roles = {label.removeprefix(prefix) for label in labels if label.startswith(prefix)}
        roles.add(labels.get("kubernetes.io/role") or "")
        addresses = {one.get("type"): one.get("address") for one in reversed(as_list(status.get("addresses")))}
        return [
            name_of(obj),
            state,
            ",".join(sorted(filter(None, roles))) or "<none>",
            created(obj),
            info.get("kubeletVersion", ""),
            addresses.get("InternalIP") or "<none>",
            addresses.get("ExternalIP") or "<none>",
            info.get("osImage") or "<unknown>",
            _kernel(info),
            info.get("containerRuntimeVersion") or "<unknown>",
        ]

    def default(self, obj: Object) -> None:
        spec, status = obj["spec"], obj["status"]
        if spec.get("podCIDR") and not spec.get("podCIDRs"):
            spec["podCIDRs"] = [spec["podCIDR"]]
        if status.get("capacity") and not status.get("allocatable"):
            status["allocatable"] = dict(status["capacity"])

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec: Object = obj["spec"]
        causes = _taints(spec.get("taints") or [])
        if old is None:
            return causes + _networks(spec.get("podCIDRs") or [])
        before: Object = old["spec"]
        for field, called in (("podCIDRs", "podCIDR"), ("providerID", "providerID")):
            if before.get(field) and before[field] != spec.get(field):
                text = f'node updates may not change {called} except from "" to valid'
                causes.append(field_forbidden(f"spec.{field}", text))
        if _fixed(spec) != _fixed(before):
            causes.append(field_forbidden("[]", "node updates may only change labels, taints, or capacity"))
        return causes


def _kernel(info: Object) -> str:
    version, architecture = info.get("kernelVersion") or "<unknown>", info.get("architecture")
    return f"{version} ({architecture})" if architecture else version


#: Fields of the spec that an update may change, or that have a rule of their own.
_FREE = ("unschedulable", "taints", "podCIDR", "podCIDRs", "providerID")


def _fixed(spec: Object) -> Object:
    """Return what an update may not change."""
    return {name: value for name, value in spec.items() if name not in _FREE}


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
            shown = {
                "Key": key,
                "Value": taint.get("value") or "",
                "Effect": effect,
                "TimeAdded": taint.get("timeAdded"),
            }
            cause = duplicate(path, shown)
            cause.message += ": taints must be unique by key and effect pair"
            causes.append(cause)
        seen.add((key, effect))
    return causes


def _networks(networks: list[str]) -> list[Cause]:
    causes, families = [], []
    for index, text in enumerate(networks):
        try:
            families.append(ipaddress.ip_network(text, strict=False).version)
        except ValueError:
            why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            causes.append(invalid_value(f"spec.podCIDRs[{index}]", text, why))
    if not causes and len(families) != len(set(families)):
        text = "may specify no more than one CIDR for each IP family"
        causes.append(invalid_value("spec.podCIDRs", networks, text))
    return causes
