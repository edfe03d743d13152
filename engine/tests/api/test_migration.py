# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import Context, Missing, Refusal
from turtles.api.kinds.migration import MIGRATION, default, validate, validate_update, warn
from turtles.api.language import Cause


def make(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "m", "namespace": "ns"}, "spec": {"vmiName": "web", **spec}}


def context(vmi: dict[str, Any] | None = None, *others: dict[str, Any]) -> Context:
    def find(kind: str, namespace: str, name: str) -> dict[str, Any]:
        if vmi is None:
            raise Missing("not found")
        return vmi

    return Context(find=find, others=lambda kind, namespace: others)


SEND = {"migrationID": "a", "connectURL": "192.0.2.1:9185"}


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
    ("migration", "words"),
    [
        (make(vmiName=""), "vmiName is missing"),
        (make(vmiName=7), "spec.vmiName must be of type string"),
        (make(sendTo={"migrationID": "a"}), "spec.sendTo.connectURL is a required field"),
        (make(receive={}), "spec.receive.migrationID is a required field"),
        (make(sendTo=SEND, receive={"migrationID": "b"}), "sendTo and receive must have the same migrationID"),
        (make(priority="system-critical"), "only virt-controller is allowed to set priority field"),
    ],
)
def test_what_is_wrong(migration: Any, words: str) -> None:
    (cause,) = validate(migration, context(vmi()))
    assert words in cause.message


@pytest.mark.parametrize(
    "sides", [{"sendTo": SEND}, {"receive": {"migrationID": "a"}}, {"sendTo": SEND, "receive": {"migrationID": "a"}}]
)
def test_one_of_two_controllers_is_admitted_with_a_warning(sides: dict[str, Any]) -> None:
    assert validate(make(**sides), context(vmi())) == []
    assert warn(make(**sides)) == [
        f"spec.{key} is not supported by this engine; this is admitted, and the migration fails" for key in sides
    ]
    developer = {"developerConfiguration": {"disabledFeatureGates": ["DecentralizedLiveMigration"]}}
    off = replace(context(vmi()), config=from_kubevirt({"spec": {"configuration": developer}}))
    with pytest.raises(Refusal) as refusal:
        validate(make(**sides), off)
    assert str(refusal.value) == "DecentralizedLiveMigration feature gate is not enabled in kubevirt resource"


def test_the_engine_says_what_comes_first() -> None:
    assert validate(make(priority="system-critical"), replace(context(vmi()), privileged=True)) == []


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (context(), 'the VMI "ns/web" does not exist'),
        (context(vmi("Succeeded")), "Cannot migrate VMI in finalized state."),
        (context(vmi(migratable="False")), "Cannot migrate VMI, Reason: R, Message: because"),
        (
            context(vmi(), other("Running")),
            "in-flight migration detected. Active migration job (u-1) is currently already in progress for VMI web.",
        ),
    ],
)
def test_what_can_not_be_for_now(known: Context, message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        validate(make(), known)
    assert (str(refusal.value), refusal.value.code) == (message, 400)


def test_what_is_admitted() -> None:
    assert validate(make(), context(vmi())) == []
    others = (other("Succeeded"), other("Failed"), other("Running", "another"))
    assert validate(make(addedNodeSelector={"a": "b"}), context(vmi(), *others)) == []


def test_it_stays_what_it_is() -> None:
    assert validate_update(make(), make()) == []
    assert validate_update(make(vmiName="other"), make()) == [
        Cause("FieldValueNotSupported", "update of Migration object's spec is restricted")
    ]


@pytest.mark.parametrize(
    ("labels", "phase", "message"),
    [
        ({"kubevirt.io/vmi-name": "web", "more": "x"}, "Running", None),
        ({"kubevirt.io/vmi-name": "other"}, "Running", "selector label can't be modified on an in-flight migration"),
        ({"more": "x"}, "", "selector label can't be modified on an in-flight migration"),
        (None, "Running", "selector label can't be removed from an in-flight migration"),
        (None, "Succeeded", None),
        ({"kubevirt.io/vmi-name": "other"}, "Failed", None),
    ],
)
def test_its_label_stays_while_it_runs(labels: Any, phase: str, message: str | None) -> None:
    old = default(make()) | {"status": {"phase": phase}}
    new = {**old, "metadata": {**old["metadata"], "labels": labels}}
    causes = [] if message is None else [Cause("FieldValueNotSupported", message)]
    assert validate_update(new, old) == causes


def test_users_need_a_role_of_its_own() -> None:
    assert "create" in MIGRATION.rights["migrate"]
    assert all("create" not in MIGRATION.rights[role] for role in ("admin", "edit", "view"))
