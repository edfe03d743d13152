# SPDX-License-Identifier: GPL-3.0-or-later
"""How the owner of an encrypted guest makes sure of it before it runs."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.configuration_reader import from_kubevirt
from turtles.kube.kubevirt import VMI
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers

from .fakes import FakeClient, FakeNodes

CONFLICT = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "vmi": '
GATE = "WorkloadEncryptionSEV"
SESSION = {"session": "c2Vzc2lvbg==", "dhCert": "Y2VydA=="}
SECRET = {"header": "aGVhZGVy", "secret": "c2VjcmV0"}


def vmi(phase: str, *conditions: str, **sev: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "vmi", "uid": "u"},
        "spec": {"domain": {"launchSecurity": {"sev": sev}}},
        "status": {"phase": phase, "conditions": [{"type": each, "status": "True"} for each in conditions]},
    }


def call(
    name: str, obj: dict[str, Any], options: Any = None, gates: str = "featureGates", **answers: Any
) -> tuple[Any, FakeNodes, FakeClient]:
    client, nodes = FakeClient((VMI, obj)), FakeNodes(**answers)
    config = from_kubevirt({"spec": {"configuration": {"developerConfiguration": {gates: [GATE]}}}})
    known = handlers(client, nodes, lambda: config)  # type: ignore[arg-type]
    return known[f"sev_{name}_vmi"]("default", "vmi", options or {}), nodes, client


WAITING = vmi("Scheduled", attestation={})
LAUNCHED = vmi("Running", "Paused", attestation={}, **SESSION)


@pytest.mark.parametrize("obj", [WAITING, LAUNCHED])
def test_the_nodes_processor_is_vouched_for(obj):
    answer, nodes, _ = call("certificates", obj, sevcertchain={"pdh": "cGRo", "certChain": "Y2hhaW4="})
    assert answer == {"pdh": "cGRo", "certChain": "Y2hhaW4="}
    assert nodes.calls == [("vmi", "sevcertchain", {})]


def test_a_session_lets_the_guest_be_launched():
    _, nodes, client = call("session", WAITING, SESSION)
    assert nodes.calls == []
    [(path, body, _)] = client.patches
    assert path.endswith("/virtualmachineinstances/vmi")
    assert body["spec"] == {"domain": {"launchSecurity": {"sev": SESSION}}}
    assert body["metadata"]["resourceVersion"], "nobody else's session is written over"


def test_what_was_launched_is_measured():
    answer, nodes, _ = call("measurement", LAUNCHED, sevmeasurement={"measurement": "bQ=="})
    assert answer == {"measurement": "bQ=="}
    assert nodes.calls == [("vmi", "sevmeasurement", {})]


def test_the_guest_gets_a_secret():
    _, nodes, _ = call("secret", LAUNCHED, {**SECRET, "other": "thing"})
    assert nodes.calls == [("vmi", "sevsecret", SECRET)]


@pytest.mark.parametrize(
    ("name", "obj", "options", "code", "message"),
    [
        ("certificates", vmi("Scheduling", attestation={}), None, 409, "VMI is not assigned to a node yet"),
        ("certificates", vmi("Scheduled"), None, 409, "Attestation not requested for VMI"),
        ("session", WAITING, None, 400, "Request with no body: SEV session parameters are required"),
        ("session", WAITING, {"dhCert": "Y2VydA=="}, 400, "Session blob is required"),
        ("session", WAITING, {"session": "c2Vzc2lvbg=="}, 400, "DH cert is required"),
        ("session", LAUNCHED, SESSION, 409, "VMI is not in Scheduled phase"),
        ("session", vmi("Scheduled"), SESSION, 409, "Attestation not requested for VMI"),
        ("session", vmi("Scheduled", attestation={}, session="eA=="), SESSION, 409, "Session already defined"),
        ("measurement", WAITING, None, 409, "VMI is not running"),
        ("measurement", vmi("Running", "Paused"), None, 409, "Attestation not requested for VMI"),
        ("measurement", vmi("Running", attestation={}), None, 409, "VMI is not paused"),
        ("secret", LAUNCHED, None, 400, "Request with no body: SEV secret parameters are required"),
        ("secret", vmi("Running", attestation={}), SECRET, 409, "VMI is not paused"),
    ],
)
def test_refused(name, obj, options, code, message):
    with pytest.raises(Failure) as found:
        call(name, obj, options)
    assert (found.value.code, found.value.message) == (code, CONFLICT + message if code == 409 else message)


@pytest.mark.parametrize("name", ["certificates", "session", "measurement", "secret"])
def test_without_the_gate(name):
    with pytest.raises(Failure) as found:
        call(name, LAUNCHED, SECRET, gates="disabledFeatureGates")
    assert (found.value.code, found.value.message) == (400, "'WorkloadEncryptionSEV' feature gate is not enabled")
