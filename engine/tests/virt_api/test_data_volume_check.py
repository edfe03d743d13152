# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api.cdi import CLONE_SOURCE, PRE_POPULATED
from turtles.kube.kubevirt import DATA_SOURCE, DATA_VOLUME
from turtles.kube.resources import PVC
from turtles.virt_api.checks import CDICheck, DataImportCronCheck, DataVolumeCheck

from .fakes import FakeClient

CLAIM = {"metadata": {"name": "disk", "namespace": "ns"}}


def ask(*claims: dict, operation: str = "CREATE", annotations: dict | None = None) -> list[str]:
    check = DataVolumeCheck(FakeClient(*((PVC, claim) for claim in claims)), "kubevirt")  # type: ignore[arg-type]
    metadata = {"name": "disk", "annotations": annotations or {}}
    request = {"operation": operation, "namespace": "ns", "object": {"metadata": metadata}}
    return [cause.message for cause in check(request)]


def test_a_claim_that_exists() -> None:
    assert ask() == []
    assert ask(CLAIM) == ["Destination PVC ns/disk already exists"]
    assert ask(CLAIM, operation="UPDATE") == []


@pytest.mark.parametrize(("name", "refused"), [("disk", False), ("other", True)])
def test_a_claim_that_is_said_to_be_filled(name: str, refused: bool) -> None:
    assert bool(ask(CLAIM, annotations={PRE_POPULATED: name})) is refused


IMAGE = {"metadata": {"name": "debian", "namespace": "images"}, "spec": {"source": {"pvc": {"name": "root"}}}}
ELSEWHERE = {"source": {"pvc": {"namespace": "images", "name": "root"}}}


def copying(spec: dict, user: str = "eve", *objects: tuple, allowed: bool = False, note: str = "") -> tuple:
    client = FakeClient(*objects)
    client.allowed = allowed
    check = DataVolumeCheck(client, "kubevirt")  # type: ignore[arg-type]
    metadata = {"name": "disk", "namespace": "ns", "annotations": {CLONE_SOURCE: note} if note else {}}
    obj = {"metadata": metadata, "spec": spec}
    request = {"operation": "CREATE", "namespace": "ns", "object": obj, "userInfo": {"username": user, "groups": ["g"]}}
    return [cause.message for cause in check(request)], client.reviews


def test_who_may_copy_from_another_namespace() -> None:
    message = "User eve has insufficient permissions in clone source namespace images"
    refused, asked = copying(ELSEWHERE)
    assert refused == [message]
    assert [(each["user"], each["groups"], each["resourceAttributes"]) for each in asked] == [
        ("eve", ["g"], {**resource, "verb": "create", "namespace": "images", "name": "root"})
        for resource in (
            {"group": "cdi.kubevirt.io", "resource": "datavolumes", "subresource": "source"},
            {"group": "", "resource": "pods"},
        )
    ]
    assert copying(ELSEWHERE, allowed=True)[0] == []
    assert copying({"source": {"pvc": {"namespace": "ns", "name": "root"}}}) == ([], [])
    # Those that the engine creates were asked about before
    assert copying(ELSEWHERE, "system:serviceaccount:kubevirt:virt-controller") == ([], [])
    snapshot = {"source": {"snapshot": {"namespace": "images", "name": "root"}}}
    assert copying(snapshot)[0] == [message]


def test_what_a_data_source_led_to_counts() -> None:
    reference = {"sourceRef": {"kind": "DataSource", "namespace": "images", "name": "debian"}}
    assert copying(reference)[0] == ["SourceRef DataSource/images/debian not found"]
    empty = {**IMAGE, "spec": {"source": {}}}
    assert copying(reference, "eve", (DATA_SOURCE, empty))[0] == [
        "SourceRef DataSource/images/debian: No source PVC or VolumeSnapshot set"
    ]
    assert "insufficient permissions" in copying(reference, note="pvc/images/root")[0][0]
    assert copying(reference, note="pvc/images/root", allowed=True)[0] == []


@pytest.mark.parametrize(
    ("source", "operation", "allowed", "refused"),
    [
        ({"pvc": {"namespace": "images", "name": "root"}}, "CREATE", False, True),
        ({"pvc": {"namespace": "images", "name": "root"}}, "CREATE", True, False),
        # Its spec can't be changed; it is asked again before each copy
        ({"pvc": {"namespace": "images", "name": "root"}}, "UPDATE", False, False),
        ({"pvc": {"namespace": "ns", "name": "root"}}, "CREATE", False, False),
        ({"registry": {"url": "docker://a"}}, "CREATE", False, False),
    ],
)
def test_who_may_have_claims_of_another_namespace_copied(
    source: dict, operation: str, allowed: bool, refused: bool
) -> None:
    client = FakeClient()
    client.allowed = allowed
    check = DataImportCronCheck(client)  # type: ignore[arg-type]
    obj = {"metadata": {"name": "web"}, "spec": {"template": {"spec": {"source": source}}}}
    user = {"username": "eve"}
    causes = check({"operation": operation, "namespace": "ns", "object": obj, "userInfo": user})
    assert bool(causes) is refused
    assert all("User eve has insufficient permissions" in cause.message for cause in causes)


@pytest.mark.parametrize(
    ("strategy", "phase", "volumes", "refused"),
    [
        ("BlockUninstallIfWorkloadsExist", "Deployed", 1, True),
        ("BlockUninstallIfWorkloadsExist", "Deployed", 0, False),
        ("BlockUninstallIfWorkloadsExist", "Error", 1, False),
        ("RemoveWorkloads", "Deployed", 1, False),
    ],
)
def test_a_cdi_that_protects_data_volumes(strategy: str, phase: str, volumes: int, refused: bool) -> None:
    names = [{"metadata": {"name": f"disk-{number}", "namespace": "ns"}} for number in range(volumes)]

    class Client(FakeClient):
        def list(self, resource: Any, namespace: str | None = None, **_: Any) -> Any:
            assert resource is DATA_VOLUME
            return {"items": names}

    check = CDICheck(Client())  # type: ignore[arg-type]
    old = {"spec": {"uninstallStrategy": strategy}, "status": {"phase": phase}}
    assert bool(check({"operation": "DELETE", "oldObject": old})) is refused
    assert check({"operation": "UPDATE", "oldObject": old}) == []
