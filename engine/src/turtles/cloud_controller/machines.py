# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node's virtual machine says about the node. Pure.

Sources: Kubernetes, "Cloud Controller Manager" and "Well-Known Labels, Annotations and Taints"; KubeVirt's cloud
provider for the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object, annotations_of, get, labels_of
from turtles.api.phases import is_final, phase_of

PROVIDER = "kubevirt://"
#: A node that has just registered, with a kubelet that leaves the rest to a cloud provider.
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
#: That the node's kubelet leaves its addresses to a cloud provider: others write them themselves.
ADDRESSES_ARE_OURS = "cloud.kubevirt.io/addresses"
#: The interface that a node is reached at.
_INTERFACE = "default"


def name_of(node: Mapping[str, Any]) -> str | None:
    """Return the name of a node's machine; None if it is no machine of this provider."""
    provider_id = get(node, "spec", "providerID") or ""
    if provider_id:
        return provider_id.removeprefix(PROVIDER) if provider_id.startswith(PROVIDER) else None
    return str(node["metadata"]["name"])


def is_uninitialized(node: Mapping[str, Any]) -> bool:
    """Return whether a node waits for its cloud provider."""
    return any(taint.get("key") == UNINITIALIZED for taint in _taints(node))


def is_shut_down(vmi: Mapping[str, Any] | None) -> bool:
    """Return whether a machine that exists doesn't run."""
    return vmi is None or is_final(vmi)


def changes(
    node: Mapping[str, Any], vmi: Mapping[str, Any] | None, infrastructure_labels: Mapping[str, str]
) -> tuple[Object, Object]:
    """Return what to change of a node and of its status, as merge patches; {} for nothing.

    :param vmi: the instance of its machine, which exists; None while it doesn't run.
    :param infrastructure_labels: labels of the node on which the machine runs, as far as they may be read.
    """
    first = is_uninitialized(node)
    if vmi is not None and phase_of(vmi) == "Unknown":
        return {}, {}
    patch: Object = {}
    if not get(node, "spec", "providerID"):
        patch["spec"] = {"providerID": f"{PROVIDER}{name_of(node)}"}
    taints = _wanted_taints(node, is_shut_down(vmi))
    if taints != _taints(node):
        patch.setdefault("spec", {})["taints"] = taints or None
    own = labels_of(node)
    wanted = {} if vmi is None else _labels(vmi, infrastructure_labels)
    new = {key: value for key, value in wanted.items() if own.get(key) != value}
    metadata: Object = {"labels": new} if new else {}
    annotated = annotations_of(node).get(ADDRESSES_ARE_OURS) == "true"
    if first and not annotated:
        metadata["annotations"] = {ADDRESSES_ARE_OURS: "true"}
    if metadata:
        patch["metadata"] = metadata
    if vmi is None or not (first or annotated):
        return patch, {}
    addresses = _addresses(node, vmi)
    before = get(node, "status", "addresses") or []
    return patch, {"status": {"addresses": addresses}} if addresses and addresses != before else {}


def _addresses(node: Mapping[str, Any], vmi: Mapping[str, Any]) -> list[Object]:
    interfaces = get(vmi, "status", "interfaces") or []
    # Without an agent an interface may have no name; the first is the one on the Pod network.
    interface = next((each for each in interfaces if each.get("name") == _INTERFACE), None)
    interface = interface or (interfaces[0] if interfaces else {})
    ips = interface.get("ipAddresses") or ([interface["ipAddress"]] if interface.get("ipAddress") else [])
    addresses = [{"type": "InternalIP", "address": ip} for ip in dict.fromkeys(ips)]
    return [*addresses, {"type": "Hostname", "address": node["metadata"]["name"]}] if addresses else []


def _labels(vmi: Mapping[str, Any], infrastructure_labels: Mapping[str, str]) -> dict[str, str]:
    annotations = annotations_of(vmi)
    size = annotations.get(labels.INSTANCETYPE) or annotations.get(labels.CLUSTER_INSTANCETYPE)
    topology = {key: infrastructure_labels[key] for key in (ZONE, REGION) if infrastructure_labels.get(key)}
    return {**({INSTANCE_TYPE: size} if size else {}), **topology}


def _taints(node: Mapping[str, Any]) -> list[Object]:
    return list(get(node, "spec", "taints") or [])


def _wanted_taints(node: Mapping[str, Any], shut_down: bool) -> list[Object]:
    gone = {UNINITIALIZED} if shut_down else {UNINITIALIZED, SHUTDOWN}
    kept = [taint for taint in _taints(node) if taint.get("key") not in gone]
    if shut_down and not any(taint.get("key") == SHUTDOWN for taint in kept):
        kept.append({"key": SHUTDOWN, "effect": "NoSchedule"})
    return kept
