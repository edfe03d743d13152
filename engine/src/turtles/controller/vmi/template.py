# SPDX-License-Identifier: GPL-3.0-or-later
"""The VirtualMachineInstance that a template asks for, whoever has the template. Pure."""

import copy
from collections.abc import Mapping
from typing import Any

from turtles.api.guests import firmware_uuid
from turtles.api.objects import Object, owner_reference
from turtles.kube.kubevirt import VMI


def make_vmi(owner: Object, template: Mapping[str, Any], name: str) -> Object:
    """Return a new VMI.

    :param owner: the object that has the template, and controls the VMI: a VM, a replica set, a pool.
    :param template: metadata and spec.
    :param name: of the VMI; its guest's firmware UUID is derived from it where the template has none.
    """
    spec = copy.deepcopy(dict(template.get("spec") or {}))
    firmware = spec.setdefault("domain", {}).setdefault("firmware", {})
    firmware.setdefault("uuid", firmware_uuid(name))
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": VMI.api_version,
        "kind": VMI.kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": dict(metadata.get("labels") or {}),
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
    }
