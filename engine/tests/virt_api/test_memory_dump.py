# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to dump memory."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.kube.kubevirt import VM, VMI
from turtles.kube.resources import PVC
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers

from .fakes import FakeClient, FakeNodes
from .test_instances import CONFLICT, vmi

VM_CONFLICT = 'Operation cannot be fulfilled on virtualmachine.kubevirt.io "vmi": '


def make(*, request: Any = None, phase: str = "Running", size: str = "1Gi", **claim: Any) -> FakeClient:
    machine = {
        "metadata": {"namespace": "default", "name": "vmi", "uid": "v"},
        "spec": {"runStrategy": "Always", "template": {"spec": {}}},
        "status": {"memoryDumpRequest": request} if request else {},
    }
    instance = vmi(phase, spec={"domain": {"memory": {"guest": "64Mi"}}})
    instance["metadata"]["ownerReferences"] = [
        {"kind": "VirtualMachine", "name": "vmi", "uid": "v", "controller": True}
    ]
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **claim}
    pvc = {"metadata": {"namespace": "default", "name": "dump"}, "spec": spec}
    return FakeClient((VM, machine), (VMI, instance), (PVC, pvc))


def call(client: FakeClient, handler: str, options: Any) -> Any:
    handlers(client, FakeNodes())[handler]("default", "vmi", options)  # type: ignore[arg-type]
    ((path, body, _),) = client.patches
    assert path == VM.path("default", "vmi", "status")
    return body["status"]["memoryDumpRequest"]


def test_a_dump():
    assert call(make(), "memory_dump_vm", {"claimName": "dump", "phase": ""}) == {
        "claimName": "dump",
        "phase": "Associating",
    }
    # Another one to the same claim; what was said of the last one goes
    done = {"claimName": "dump", "phase": "Completed", "fileName": "f", "endTimestamp": "t"}
    again = call(make(request=done), "memory_dump_vm", {"phase": ""})
    assert again == {"claimName": "dump", "phase": "Associating", "fileName": None, "endTimestamp": None}
    assert call(make(request=done), "remove_memory_dump_vm", {}) == {
        "claimName": "dump",
        "phase": "Dissociating",
        "remove": True,
    }


@pytest.mark.parametrize(
    ("given", "handler", "options", "code", "message"),
    [
        ({}, "memory_dump_vm", {}, 400, "Memory dump requires claim name to be set"),
        ({}, "memory_dump_vm", {"claimName": "none"}, 404, 'persistentvolumeclaims "none" not found'),
        ({"phase": "Scheduled"}, "memory_dump_vm", {"claimName": "dump"}, 409, CONFLICT + "VMI is not running"),
        (
            {"size": "64Mi"},
            "memory_dump_vm",
            {"claimName": "dump"},
            409,
            VM_CONFLICT + "pvc size [64Mi] should be bigger then [174Mi]",
        ),
        (
            {"volumeMode": "Block"},
            "memory_dump_vm",
            {"claimName": "dump"},
            409,
            VM_CONFLICT + "pvc should be filesystem pvc",
        ),
        (
            {"accessModes": ["ReadOnlyMany"]},
            "memory_dump_vm",
            {"claimName": "dump"},
            409,
            VM_CONFLICT + "pvc access mode can't be read only",
        ),
        (
            {"request": {"claimName": "other", "phase": "Completed"}},
            "memory_dump_vm",
            {"claimName": "dump"},
            409,
            VM_CONFLICT
            + "can't request memory dump for pvc [dump] while pvc [other] is still associated as the memory dump pvc",
        ),
        (
            {"request": {"claimName": "dump", "phase": "InProgress"}},
            "memory_dump_vm",
            {"claimName": "dump"},
            409,
            VM_CONFLICT + "memory dump request for pvc [dump] already in progress",
        ),
        (
            {"request": {"claimName": "dump", "phase": "Dissociating"}},
            "memory_dump_vm",
            {"claimName": "dump"},
            409,
            VM_CONFLICT + "can't dump memory for pvc [dump] a remove memory dump request is in progress",
        ),
        (
            {},
            "remove_memory_dump_vm",
            {},
            409,
            VM_CONFLICT + "can't remove memory dump association for vm vmi, no association found",
        ),
        (
            {"request": {"claimName": "dump", "phase": "Dissociating", "remove": True}},
            "remove_memory_dump_vm",
            {},
            409,
            VM_CONFLICT + "memory dump remove request for pvc [dump] already exists",
        ),
    ],
)
def test_refused(given, handler, options, code, message):
    client = make(**given)
    with pytest.raises(Failure) as raised:
        handlers(client, FakeNodes())[handler]("default", "vmi", options)  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.message) == (code, message)
    assert client.patches == []
