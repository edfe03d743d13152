# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests about VMIs are passed on to virt-handler, and how the others are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from turtles.kube.kubevirt import VM, VMI
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers

from .fakes import FakeClient, FakeNodes

CONFLICT = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "vmi": '


def vmi(phase: str = "Running", *conditions: str, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "vmi", "uid": "u"},
        "spec": spec or {"domain": {}},
        "status": {
            "phase": phase,
            "nodeName": "node-1",
            "conditions": [{"type": condition, "status": "True"} for condition in conditions],
            **status,
        },
    }


def call(name: str, obj: dict[str, Any] | None, options: Any = None, **answers: Any) -> tuple[Any, FakeNodes]:
    nodes = FakeNodes(**answers)
    client = FakeClient(*([(VMI, copy.deepcopy(obj))] if obj else []))
    return handlers(client, nodes)[f"{name}_vmi"]("default", "vmi", options or {}), nodes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "obj", "options", "passed_on"),
    [
        ("pause", vmi(), {}, ("pause", {})),
        ("pause", vmi(spec={"livenessProbe": {"guestAgentPing": {}}}), {}, ("pause", {})),
        ("unpause", vmi("Running", "Paused"), {}, ("unpause", {})),
        ("soft_reboot", vmi(), {}, ("softreboot", {"byAgent": False})),
        ("soft_reboot", vmi("Running", "AgentConnected"), {}, ("softreboot", {"byAgent": True})),
        (
            "soft_reboot",
            vmi("Running", "AgentConnected", spec={"domain": {"features": {"acpi": {"enabled": False}}}}),
            {},
            ("softreboot", {"byAgent": True}),
        ),
        ("reset", vmi(), {}, ("reset", {})),
        ("reset", vmi("Running", "Paused"), {}, ("reset", {})),
        ("freeze", vmi("Running", "AgentConnected"), {}, ("freeze", {"unfreezeTimeout": 300.0})),
        (
            "freeze",
            vmi("Running", "AgentConnected"),
            {"unfreezeTimeout": "1m30s"},
            ("freeze", {"unfreezeTimeout": 90.0}),
        ),
        ("freeze", vmi("Running", "AgentConnected"), {"unfreezeTimeout": "0s"}, ("freeze", {"unfreezeTimeout": 0.0})),
        ("unfreeze", vmi("Running", "AgentConnected"), {}, ("unfreeze", {})),
    ],
)
def test_passed_on(name, obj, options, passed_on):
    _, nodes = call(name, obj, options)
    assert nodes.calls == [("vmi", *passed_on)]


@pytest.mark.parametrize(("name", "obj"), [("pause", vmi()), ("unpause", vmi("Running", "Paused"))])
def test_dry_run_changes_nothing(name, obj):
    _, nodes = call(name, obj, {"dryRun": ["All"]})
    assert nodes.calls == []


@pytest.mark.parametrize("name", ["guest_info", "users", "filesystems"])
def test_what_the_agent_says_is_the_answer(name):
    operation = {"guest_info": "guestosinfo", "users": "userlist", "filesystems": "filesystemlist"}[name]
    answer, nodes = call(name, vmi("Running", "AgentConnected"), **{operation: {"items": []}})
    assert answer == {"items": []}
    assert nodes.calls == [("vmi", operation, {})]


NO_ACPI = {"domain": {"features": {"acpi": {"enabled": False}}}}
NOT_FOUND = 'virtualmachineinstance.kubevirt.io "vmi" not found'


@pytest.mark.parametrize(
    ("name", "obj", "options", "code", "message"),
    [
        ("pause", None, {}, 404, NOT_FOUND),
        ("guest_info", None, {}, 404, NOT_FOUND),
        ("pause", vmi("Scheduled"), {}, 409, CONFLICT + "VM is not running"),
        ("pause", vmi("Running", "Paused"), {}, 409, CONFLICT + "VMI is already paused"),
        ("pause", vmi("Running", "Paused"), {"dryRun": ["All"]}, 409, CONFLICT + "VMI is already paused"),
        (
            "pause",
            vmi(spec={"livenessProbe": {"tcpSocket": {"port": 22}}}),
            {},
            403,
            'virtualmachineinstance.kubevirt.io "vmi" is forbidden: '
            "Pausing VMIs with a non-GuestAgentPing LivenessProbe is not supported",
        ),
        ("unpause", vmi("Succeeded"), {}, 409, CONFLICT + "VMI is not running"),
        ("unpause", vmi(), {}, 409, CONFLICT + "VMI is not paused"),
        ("soft_reboot", vmi("Failed"), {}, 409, CONFLICT + "VM is not running"),
        ("soft_reboot", vmi("Running", "Paused"), {}, 409, CONFLICT + "VMI is paused"),
        (
            "soft_reboot",
            vmi(spec=NO_ACPI),
            {},
            409,
            CONFLICT + "VMI neither have the agent connected nor the ACPI feature enabled",
        ),
        ("freeze", vmi("Pending"), {}, 409, CONFLICT + "VM is not running"),
        ("freeze", vmi(), {}, 409, CONFLICT + "VMI does not have guest agent connected"),
        ("unfreeze", vmi("Pending"), {}, 409, CONFLICT + "VMI is not running"),
        ("users", vmi("Pending"), {}, 409, CONFLICT + "VMI is not running"),
        ("filesystems", vmi(), {}, 409, CONFLICT + "VMI does not have guest agent connected"),
        (
            "freeze",
            vmi("Running", "AgentConnected"),
            {"unfreezeTimeout": "soon"},
            400,
            "Can not unmarshal Request body to struct, error: unfreezeTimeout: 'soon' is not a duration; "
            "one looks like 24h or 1h30m",
        ),
        (
            "freeze",
            vmi("Running", "AgentConnected"),
            {"unfreezeTimeout": "-1s"},
            400,
            "unfreezeTimeout must not be negative, but is -1s; 0s means no time limit",
        ),
    ],
)
def test_refused(name, obj, options, code, message):
    with pytest.raises(Failure) as raised:
        call(name, obj, options)
    assert (raised.value.code, raised.value.message) == (code, message)


def test_an_evacuation_is_cancelled_for_the_node_that_was_meant():
    client = FakeClient((VMI, vmi(evacuationNodeName="node-1")))
    cancel = handlers(client, FakeNodes())["cancel_evacuation_vmi"]  # type: ignore[arg-type]
    with pytest.raises(Failure, match="it is"):
        cancel("default", "vmi", {"evacuationNodeName": "node-2"})
    assert client.patches == []
    cancel("default", "vmi", {"evacuationNodeName": "node-1"})
    (_, body, _) = client.patches[0]
    assert body["status"] == {"evacuationNodeName": None}


def test_there_may_be_no_evacuation_to_cancel():
    client = FakeClient((VMI, vmi()))
    handlers(client, FakeNodes())["cancel_evacuation_vmi"]("default", "vmi", {})  # type: ignore[arg-type]
    assert client.patches == []


@pytest.mark.parametrize("there", [[(VMI, vmi("Scheduled"))], []])
def test_a_machine_that_does_not_run_is_not_migrated(there):
    client = FakeClient((VM, {"metadata": {"namespace": "default", "name": "vmi", "uid": "v"}}), *there)
    with pytest.raises(Failure) as raised:
        handlers(client, FakeNodes())["migrate_vm"]("default", "vmi", {})  # type: ignore[arg-type]
    message = 'Operation cannot be fulfilled on virtualmachine.kubevirt.io "vmi": VM is not running'
    assert (raised.value.code, raised.value.message) == (409, message)
