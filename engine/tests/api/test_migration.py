# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kind import Context, Missing
from turtles.api.kinds.migration import MIGRATION, default, validate, validate_update


def make(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "m", "namespace": "ns"}, "spec": {"vmiName": "web", **spec}}


def context(vmi: dict[str, Any] | None = None, *others: dict[str, Any]) -> Context:
    def find(kind: str, namespace: str, name: str) -> dict[str, Any]:
        if vmi is None:
            raise Missing("not found")
        return vmi

    return Context(find=find, others=lambda kind, namespace: others)


def vmi(phase: str = "Running", migratable: str = "True") -> dict[str, Any]:
    condition = {"type": "LiveMigratable", "status": migratable, "reason": "R", "message": "because"}
    return {"metadata": {}, "status": {"phase": phase, "conditions": [condition]}}


def other(phase: str, name: str = "web") -> dict[str, Any]:
    return {"metadata": {"uid": "u-1"}, "spec": {"vmiName": name}, "status": {"phase": phase}}


def test_it_gets_its_finalizer_and_a_label() -> None:
    found = default(make())
    assert found["metadata"]["finalizers"] == ["kubevirt.io/migrationJobFinalize"]
    assert found["metadata"]["labels"] == {"kubevirt.io/vmi-name": "web"}
    assert default({"spec": 7}) == {"spec": 7}


@pytest.mark.parametrize(
    ("migration", "known", "words"),
    [
        (make(vmiName=""), context(vmi()), "vmiName is missing"),
        (make(vmiName=7), context(vmi()), "spec.vmiName must be of type string"),
        (make(), context(), 'the VMI "ns/web" does not exist'),
        (make(), context(vmi("Succeeded")), "Cannot migrate VMI in finalized state."),
        (make(), context(vmi(migratable="False")), "Cannot migrate VMI, Reason: R, Message: because"),
        (
            make(),
            context(vmi(), other("Running")),
            "in-flight migration detected. Active migration job (u-1) is currently already in progress for VMI web.",
        ),
        (make(sendTo={"a": "b"}), context(vmi()), "not supported by this engine"),
    ],
)
def test_what_is_refused(migration: Any, known: Context, words: str) -> None:
    (cause,) = validate(migration, known)
    assert words in cause.message


def test_what_is_admitted() -> None:
    assert validate(make(), context(vmi())) == []
    others = (other("Succeeded"), other("Failed"), other("Running", "another"))
    assert validate(make(addedNodeSelector={"a": "b"}), context(vmi(), *others)) == []


def test_it_stays_what_it_is() -> None:
    assert validate_update(make(), make()) == []
    (cause,) = validate_update(make(vmiName="other"), make())
    assert cause.message == "update of Migration object's spec is restricted"


def test_users_need_a_role_of_its_own() -> None:
    assert "create" in MIGRATION.rights["migrate"]
    assert all("create" not in MIGRATION.rights[role] for role in ("admin", "edit", "view"))
