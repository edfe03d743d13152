# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects the tests start from."""

from __future__ import annotations

import copy
from typing import Any

TALK_VM: dict[str, Any] = {
    "apiVersion": "kubevirt.io/v1alpha3",
    "kind": "VirtualMachine",
    "metadata": {"name": "testvm"},
    "spec": {
        "running": False,
        "template": {
            "metadata": {"labels": {"kubevirt.io/size": "small", "kubevirt.io/domain": "testvm"}},
            "spec": {
                "domain": {
                    "devices": {
                        "disks": [
                            {"name": "containerdisk", "disk": {"bus": "virtio"}},
                            {"name": "cloudinitdisk", "disk": {"bus": "virtio"}},
                        ],
                        "interfaces": [{"name": "default", "bridge": {}}],
                    },
                    "resources": {"requests": {"memory": "64M"}},
                },
                "networks": [{"name": "default", "pod": {}}],
                "volumes": [
                    {"name": "containerdisk", "containerDisk": {"image": "kubevirt/cirros-registry-disk-demo"}},
                    {"name": "cloudinitdisk", "cloudInitNoCloud": {"userDataBase64": "SGkuXG4="}},
                ],
            },
        },
    },
}


def talk_vm() -> dict[str, Any]:
    """Give a copy of the VirtualMachine of the talk."""
    return copy.deepcopy(TALK_VM)


def talk_vmi() -> dict[str, Any]:
    """Give the VirtualMachineInstance it makes."""
    template = talk_vm()["spec"]["template"]
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "testvm", "namespace": "default", **template["metadata"]},
        "spec": template["spec"],
    }


def put(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Set a dotted path (numbers are indices; a missing object is made) and give the object."""
    here: Any = obj
    *way, last = path.split(".")
    for key in way:
        here = here[int(key)] if isinstance(here, list) else here.setdefault(key, {})
    if isinstance(here, list):
        here[int(last)] = value
    else:
        here[last] = value
    return obj


def twice(causes: list[Any]) -> list[Any]:
    """Give the causes about networks, disks or paths of a new instance, which come first and again in their turn."""
    return [*causes, *causes]
