# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions of NICs for a launcher Pod (KubeVirt user guide, "SR-IOV"). Pure.

The network's definition names the resource that a device plugin offers. The Pod asks for one of it per interface, and
its container learns from the plugin which devices it was given, and from Multus by way of an annotation which of them
belongs to which network.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object
from turtles.api.texts import from_json
from turtles.domain import paths
from turtles.domain.connections import connections
from turtles.domain.definition.host_devices import RESOURCE_PREFIX
from turtles.domain.interface_names import pod_interface_name

_VOLUME = "network-info-annotation"


def definitions(vmi: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return namespace and name of the definitions of a VMI's SR-IOV networks, by the networks' names."""
    by_network = {}
    for _, interface, each in connections(vmi["spec"]):
        if interface.get("sriov") is not None and each.get("multus") is not None:
            namespace, _, name = each["multus"]["networkName"].rpartition("/")
            by_network[each["name"]] = (namespace or vmi["metadata"]["namespace"], name)
    return by_network


def obstacle(where: tuple[str, str], definition: Object | None) -> str:
    """Return why a definition can't be that of an SR-IOV network; nothing if it can.

    :param where: its namespace and name. :param definition: None if there is none.
    """
    here = f"NetworkAttachmentDefinition {'/'.join(where)}"
    if definition is None:
        return f"{here} does not exist; create it, or correct spec.networks"
    if not resource(definition):
        return f"{here} has no annotation {labels.RESOURCE_NAME}, which names the device plugin's resource; add it"
    return ""


def resource(definition: Object) -> str:
    """Return the name of the resource in a network's definition; empty if it has none."""
    return str((definition["metadata"].get("annotations") or {}).get(labels.RESOURCE_NAME) or "")


def add(resources: Mapping[str, str], pod_spec: Object) -> None:
    """Add what a launcher needs for SR-IOV interfaces.

    :param resources: names of the resources, by the networks' names; empty if there are no such interfaces.
    """
    if not resources:
        return
    compute = pod_spec["containers"][0]
    for name, count in Counter(resources.values()).items():
        for amounts in compute["resources"].values():
            amounts[name] = str(count)
    compute["env"] += [{"name": f"{RESOURCE_PREFIX}_{name}", "value": value} for name, value in resources.items()]
    compute["volumeMounts"].append({"name": _VOLUME, "mountPath": str(paths.POD_INFO_DIR)})
    field = {"fieldPath": f"metadata.annotations['{labels.NETWORK_INFO}']"}
    item = {"path": paths.NETWORK_INFO.name, "fieldRef": field}
    pod_spec["volumes"].append({"name": _VOLUME, "downwardAPI": {"items": [item]}})


def info(vmi: Object, pod: Object) -> str | None:
    """Return the annotation about the devices of a Pod's networks; None if it is there, or Multus hasn't reported."""
    annotations = pod["metadata"].get("annotations") or {}
    wanted = {
        pod_interface_name(each): each["name"]
        for _, interface, each in connections(vmi["spec"])
        if interface.get("sriov") is not None
    }
    try:
        reported = from_json(annotations.get(labels.NETWORK_STATUS) or "[]")
        entries = list(_entries(wanted, reported))
    except (ValueError, TypeError, AttributeError):
        return None
    text = json.dumps({"interfaces": entries}, separators=(",", ":"))
    return text if entries and annotations.get(labels.NETWORK_INFO) != text else None


def _entries(wanted: Mapping[str, str], reported: list[Mapping[str, Any]]) -> Iterator[Object]:
    for entry in reported:
        name = wanted.get(str(entry.get("interface")))
        if name is not None and entry.get("device-info"):
            mac = {"mac": entry["mac"]} if entry.get("mac") else {}
            yield {"network": name, "deviceInfo": entry["device-info"], **mac}
