# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.kube.kubevirt import VM, VMI
from turtles.virt_api import discovery, instances, streams
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers

from .fakes import FakeClient, FakeNodes

PATH = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines/vm"
VMI_PATH = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm"
STOP = {"action": "Stop", "uid": "u"}
START = {"action": "Start"}


def call(
    operation: str, spec: dict[str, Any], phase: str | None = None, options: Any = None, **status: Any
) -> list[tuple[str, dict[str, Any]]]:
    client = make(spec, phase, **status)
    handlers(client, FakeNodes())[f"{operation}_vm"]("default", "vm", options or {})
    for _, body, _ in client.patches:
        assert body.pop("metadata") == {
            "resourceVersion": "102" if "terminationGracePeriodSeconds" in str(body) else "101"
        }
    return [(path, body) for path, body, _ in client.patches]


def make(spec: dict[str, Any], phase: str | None = None, owner: str = "v", **status: Any) -> FakeClient:
    client = FakeClient(
        (VM, {"metadata": {"namespace": "default", "name": "vm", "uid": "v"}, "spec": spec, "status": status})
    )
    if phase is not None:
        metadata = {
            "namespace": "default",
            "name": "vm",
            "uid": "u",
            "ownerReferences": [{"kind": "VirtualMachine", "name": "vm", "uid": owner, "controller": True}],
        }
        vmi = {"metadata": metadata, "spec": {"terminationGracePeriodSeconds": 30}, "status": {"phase": phase}}
        client._store(VMI, vmi)
    return client


def requests(*wanted: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{PATH}/status", {"status": {"stateChangeRequests": list(wanted)}})]


def spec(**values: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(PATH, {"spec": values})]


@pytest.mark.parametrize(
    ("operation", "vm", "phase", "options", "writes"),
    [
        ("start", {"running": False}, None, {}, spec(running=True)),
        ("start", {"runStrategy": "Halted"}, None, {}, spec(runStrategy="Always")),
        ("start", {"runStrategy": "Halted"}, "Succeeded", {}, spec(runStrategy="Always")),
        ("start", {"running": False}, None, {"paused": True}, requests({**START, "data": {"paused": "true"}})),
        ("start", {"runStrategy": "Manual"}, None, {}, requests(START)),
        ("start", {"runStrategy": "Manual"}, "Failed", {}, requests(STOP, START)),
        ("start", {"runStrategy": "RerunOnFailure"}, "Succeeded", {}, requests(STOP, START)),
        ("stop", {"running": True}, "Running", {}, spec(running=False)),
        ("stop", {"runStrategy": "Always"}, None, {}, spec(runStrategy="Halted")),
        ("stop", {"runStrategy": "Once"}, "Running", {}, spec(runStrategy="Halted")),
        ("stop", {"runStrategy": "Manual"}, "Running", {}, requests(STOP)),
        ("stop", {"runStrategy": "RerunOnFailure"}, "Scheduled", {}, requests(STOP)),
        (
            "stop",
            {"running": True},
            "Running",
            {"gracePeriod": 0},
            [(VMI_PATH, {"spec": {"terminationGracePeriodSeconds": 0}}), *spec(running=False)],
        ),
        (
            "stop",
            {"running": False},
            "Running",
            {"gracePeriod": 5},
            [(VMI_PATH, {"spec": {"terminationGracePeriodSeconds": 5}})],
        ),
        ("restart", {"running": True}, "Running", {}, requests(STOP, START)),
        ("restart", {"runStrategy": "Manual"}, "Succeeded", {}, requests(STOP, START)),
        (
            "restart",
            {"running": True},
            "Running",
            {"gracePeriodSeconds": 0},
            [(VMI_PATH, {"spec": {"terminationGracePeriodSeconds": 1}}), *requests(STOP, START)],
        ),
    ],
)
def test_done(operation, vm, phase, options, writes):
    assert call(operation, vm, phase, options) == writes


@pytest.mark.parametrize(
    ("operation", "vm", "phase", "options", "code", "message"),
    [
        ("start", {"running": True}, None, {}, 409, "Always does not support manual start requests"),
        ("start", {"runStrategy": "Once"}, None, {}, 409, "Once does not support manual start requests"),
        ("start", {"running": False}, "Running", {}, 409, "VM is already running"),
        ("start", {"running": True}, "Running", {}, 409, "VM is already running"),
        (
            "start",
            {"runStrategy": "RerunOnFailure"},
            "Failed",
            {},
            409,
            "RerunOnFailure does not support starting VM from failed state",
        ),
        ("start", {"running": False}, None, {"paused": "x"}, 400, "paused must be of type bool"),
        ("stop", {"running": False}, None, {}, 409, "VM is not running"),
        ("stop", {"running": False}, "Succeeded", {}, 409, "VM is not running"),
        ("stop", {"runStrategy": "Manual"}, None, {}, 409, "VM is not running"),
        (
            "stop",
            {"running": False},
            "Running",
            {},
            409,
            "only supports manual stop requests with a shorter graceperiod",
        ),
        ("stop", {"running": False}, "Running", {"gracePeriod": 30}, 409, "with a shorter graceperiod"),
        ("stop", {"running": True}, "Running", {"gracePeriod": -1}, 400, "greater or equal to 0"),
        (
            "restart",
            {"running": False},
            "Running",
            {},
            409,
            "RunStategy Halted does not support manual restart requests",
        ),
        ("restart", {"runStrategy": "Once"}, "Running", {}, 409, "RunStategy Once does not support manual restart"),
        ("restart", {"running": True}, None, {}, 409, "VM is not running: Halted"),
        ("restart", {"running": True}, "Running", {"gracePeriodSeconds": 5}, 400, "only gracePeriod=0 is supported"),
        ("restart", {"running": True}, "Running", {"gracePeriodSeconds": -5}, 400, "greater or equal to 0"),
        ("restart", {"running": True}, "Running", {"gracePeriodSeconds": True}, 400, "must be of type int"),
    ],
)
def test_refused(operation, vm, phase, options, code, message):
    with pytest.raises(Failure) as found:
        call(operation, vm, phase, options)
    assert found.value.code == code
    assert message in found.value.message
    if code == 409:
        assert found.value.message.startswith('Operation cannot be fulfilled on virtualmachine.kubevirt.io "vm": ')
        assert found.value.as_status()["reason"] == "Conflict"


def test_pending_requests():
    message = "unable to complete request: stop/start already underway"
    for operation in ("start", "restart"):
        phase = None if operation == "start" else "Running"
        with pytest.raises(Failure, match=message):
            call(operation, {"runStrategy": "Manual"}, phase, stateChangeRequests=[START])
    assert call("stop", {"runStrategy": "Manual"}, "Running", stateChangeRequests=[START]) == requests(STOP)


@pytest.mark.parametrize(
    ("operation", "options"), [("restart", {}), ("restart", {"gracePeriodSeconds": 0}), ("stop", {})]
)
def test_who_waits_for_ready_after_a_restart_waits_for_the_next_instance(operation, options):
    """The VM isn't ready from the moment on in which the request is accepted, before any controller has seen it."""
    others = {"type": "LiveMigratable", "status": "False", "reason": "NotMigratable"}
    ready = {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    writes = call(operation, {"runStrategy": "Manual"}, "Running", options, ready=True, conditions=[ready, others])
    status = writes[-1][1]["status"]
    assert status["ready"] is None
    assert status["conditions"][1] == others
    condition = status["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("False", "PodTerminating")
    assert condition["lastTransitionTime"] > "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("owner", ["another", ""])
def test_an_instance_of_that_name_that_is_not_the_vms(owner):
    """Starting the VM is how it adopts an instance; the others would act on somebody else's."""
    client = make({"runStrategy": "Halted"}, "Running", owner=owner)
    handlers(client, FakeNodes())["start_vm"]("default", "vm", {})  # type: ignore[arg-type]
    assert [(path, body["spec"]) for path, body, _ in client.patches] == [(PATH, {"runStrategy": "Always"})]
    client = make({"runStrategy": "Manual"}, "Running", owner=owner)
    for operation, options in (("stop", {"gracePeriod": 0}), ("restart", {"gracePeriodSeconds": 0})):
        with pytest.raises(Failure, match="VM is not running"):
            handlers(client, FakeNodes())[f"{operation}_vm"]("default", "vm", options)  # type: ignore[arg-type]
    assert client.patches == []


def test_missing():
    with pytest.raises(Failure) as found:
        handlers(FakeClient(), FakeNodes())["start_vm"]("default", "vm", {})  # type: ignore[arg-type]
    assert found.value.as_status()["message"] == 'virtualmachine.kubevirt.io "vm" not found'
    assert found.value.code == 404


def test_write_conflicts_are_tried_again(monkeypatch):
    client = make({"running": False})
    client.conflicts = 7
    handlers(client, FakeNodes())["start_vm"]("default", "vm", {"dryRun": ["All"]})  # type: ignore[arg-type]
    assert [query for _, _, query in client.patches] == [{"dryRun": "All"}]
    client.conflicts = 5
    monkeypatch.setattr(instances, "_PATIENCE", 0.0)
    with pytest.raises(Failure, match="keeps changing") as found:
        handlers(client, FakeNodes())["start_vm"]("default", "vm", {})  # type: ignore[arg-type]
    assert found.value.code == 409


def test_kinds_name_handlers_that_exist() -> None:
    operations = (*discovery.SUBRESOURCES.values(), *discovery.NAMESPACE_OPERATIONS.values())
    for is_stream, known in (
        (False, handlers(FakeClient(), FakeNodes())),  # type: ignore[arg-type]
        (True, streams.handlers(FakeClient(), FakeNodes())),  # type: ignore[arg-type]
    ):
        assert {subresource.handler for _, subresource in operations if subresource.stream == is_stream} == known.keys()
