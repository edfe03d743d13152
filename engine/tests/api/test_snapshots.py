# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshots and restores are admitted."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kind import Context, Missing
from turtles.api.kinds.snapshot import RESTORE, SNAPSHOT
from turtles.api.kinds.snapshot.common import spec_stays
from turtles.api.kinds.snapshot.restore import validate as validate_restore
from turtles.api.kinds.snapshot.snapshot import validate as validate_snapshot

VM = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "vm"}
READY = {
    "phase": "Succeeded",
    "readyToUse": True,
    "sourceUID": "u-vm",
    "snapshotVolumes": {"includedVolumes": ["data"]},
}


def snapshot(status: Any = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "s", "namespace": "ns"}, "spec": {"source": VM, **spec}, "status": status or {}}


def restore(name: str = "r", **spec: Any) -> dict[str, Any]:
    spec = {"target": VM, "virtualMachineSnapshotName": "s", **spec}
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": spec}


def context(*others: dict[str, Any], status: Any = READY, uid: str | None = "u-vm") -> Context:
    def find(kind: str, _namespace: str, name: str) -> dict[str, Any]:
        if kind == "VirtualMachineSnapshot" and name == "s":
            return snapshot(status)
        if kind == "VirtualMachine" and uid:
            return {"metadata": {"name": name, "uid": uid}}
        raise Missing("not found")

    return Context(others=lambda _kind, _namespace: others, find=find)


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"source": {**VM, "apiGroup": "apps"}}, "spec.source.apiGroup", "must be kubevirt.io, not apps"),
        ({"source": {"kind": "VirtualMachine", "name": "vm"}}, "spec.source.apiGroup", "not empty"),
        ({"source": {**VM, "kind": "Pod"}}, "spec.source.kind", "invalid kind"),
        ({"deletionPolicy": "Keep"}, "spec.deletionPolicy", '"Delete", "Retain"'),
        ({"failureDeadline": "soon"}, "spec.failureDeadline", "is not a duration"),
        ({"failureDeadline": "-5m"}, "spec.failureDeadline", "must not be negative"),
    ],
)
def test_snapshots_that_are_refused(spec: dict[str, Any], field: str, words: str) -> None:
    (cause,) = validate_snapshot(snapshot(**spec))
    assert cause.field == field
    assert words in cause.message


def test_snapshots_that_are_admitted() -> None:
    assert validate_snapshot(snapshot()) == []
    assert validate_snapshot(snapshot(deletionPolicy="Retain", failureDeadline="1h30m")) == []


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"target": {**VM, "kind": "Pod"}}, "spec.target.kind", "invalid kind"),
        ({"targetReadinessPolicy": "Now"}, "spec.targetReadinessPolicy", "StopTarget"),
        ({"volumeRestorePolicy": "Same"}, "spec.volumeRestorePolicy", "InPlace"),
        ({"virtualMachineSnapshotName": "x"}, "spec.virtualMachineSnapshotName", '"x" does not exist'),
        ({"patches": ["{"]}, "spec.patches[0]", "is not JSON"),
        ({"patches": ['{"path": "/spec/x"}']}, "spec.patches[0]", "needs op and path"),
        ({"patches": ['{"op": "remove", "path": "/metadata/name"}']}, "spec.patches[0]", "only /spec may be patched"),
        (
            {"patches": ['{"op": "copy", "from": "/status/x", "path": "/spec/x"}']},
            "spec.patches[0]",
            "only /spec may be patched",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "none", "restoreName": "a"}]},
            "spec.volumeRestoreOverrides[0].volumeName",
            "the snapshot has no volume none, but: data",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "data"}]},
            "spec.volumeRestoreOverrides[0]",
            "at least one overriding field",
        ),
    ],
)
def test_restores_that_are_refused(spec: dict[str, Any], field: str, words: str) -> None:
    (cause,) = validate_restore(restore(**spec), context())
    assert cause.field == field
    assert words in cause.message


@pytest.mark.parametrize(
    ("status", "words"),
    [({"phase": "Failed"}, "has failed and is invalid to use"), ({"phase": "InProgress"}, "is not ready to use")],
)
def test_only_whole_snapshots_are_restored(status: dict[str, Any], words: str) -> None:
    (cause,) = validate_restore(restore(), context(status=status))
    assert words in cause.message


def test_only_the_machine_itself_or_a_new_one_is_a_target() -> None:
    assert validate_restore(restore(), context()) == []
    assert validate_restore(restore(), context(uid=None)) == []
    (cause,) = validate_restore(restore(), context(uid="u-other"))
    assert cause.field == "spec.target"
    assert "restore target already exists" in cause.message
    new = restore(target={**VM, "name": "new"}, volumeRestorePolicy="InPlace")
    (cause,) = validate_restore(new, context(uid=None))
    assert cause.field == "spec.volumeRestorePolicy"


def test_one_restore_of_a_machine_at_a_time() -> None:
    other = restore("other")
    (cause,) = validate_restore(restore(), context(other))
    assert cause.message == 'VirtualMachineRestore "other" in progress'
    failure = {"conditions": [{"type": "Failure", "status": "True"}]}
    for status in ({"complete": True}, failure):
        assert validate_restore(restore(), context({**other, "status": status})) == []
    assert validate_restore(restore(), context(restore("other", target={**VM, "name": "elsewhere"}))) == []


def test_a_spec_stays_as_it_is() -> None:
    assert spec_stays(snapshot(READY), snapshot(), Context()) == []
    (cause,) = spec_stays(snapshot(deletionPolicy="Retain"), snapshot(), Context())
    assert cause.message == "spec in immutable after creation"


@pytest.mark.parametrize("kind", [SNAPSHOT, RESTORE])
@pytest.mark.parametrize("value", [None, [], "x", {}, {"spec": None}, {"spec": []}, {"spec": {"source": 1}}])
def test_anything_is_judged(kind: Any, value: Any) -> None:
    assert kind.validate(value, Context())
