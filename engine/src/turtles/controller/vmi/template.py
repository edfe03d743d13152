# SPDX-License-Identifier: GPL-3.0-or-later
"""The VirtualMachineInstance that a template asks for, no matter what kind has the template. Pure."""

import copy
from collections.abc import Mapping
from typing import Any

from turtles.api.guests import firmware_uuid
from turtles.api.kinds.vmi.defaults.devices import attach_input_device
from turtles.api.objects import Object, owner_reference
from turtles.kube.kubevirt import VM, VMI


def make_vmi(owner: Object, template: Mapping[str, Any], name: str = "", *, prefix: str = "") -> Object:
    """Return a new VMI.

    :param owner: the object that has the template, and controls the VMI: a VM, a replica set.
    :param template: metadata and spec.
    :param name: of the VMI; its guest's firmware UUID is derived from it where the template has none.
    :param prefix: instead of a name, what the one that the API server makes up begins with. The UUID is then made up
        at admission.
    """
    spec = copy.deepcopy(dict(template.get("spec") or {}))
    if name:
        spec.setdefault("domain", {}).setdefault("firmware", {}).setdefault("uuid", firmware_uuid(name))
    if owner["kind"] == VM.kind:
        attach_input_device(spec)
        if volumes := spec.get("volumes"):
            # A claim for memory dumps comes with a request.
            spec["volumes"] = [volume for volume in volumes if volume.get("memoryDump") is None]
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": VMI.api_version,
        "kind": VMI.kind,
        "metadata": {
            **({"name": name} if name else {"generateName": prefix}),
            "namespace": owner["metadata"]["namespace"],
            "labels": dict(metadata.get("labels") or {}),
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
    }
