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
        ({"source": {**VM, "apiGroup": "apps"}}, "spec.source.apiGroup", "invalid apiGroup"),
        ({"source": {"kind": "VirtualMachine", "name": "vm"}}, "spec.source.apiGroup", "missing apiGroup"),
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
        ({"target": {**VM, "apiGroup": "apps"}}, "spec.target.apiGroup", "invalid apiGroup"),
        ({"target": {"kind": "Pod", "name": "vm"}}, "spec.target.apiGroup", "missing apiGroup"),
        ({"volumeRestorePolicy": "Same"}, "spec.volumeRestorePolicy", 'volume restore policy "Same" doesn\'t exist'),
        ({"volumeOwnershipPolicy": "Me"}, "spec.volumeOwnershipPolicy", 'volume ownership policy "Me" doesn\'t exist'),
        (
            {"patches": ["{"]},
            "spec.patches",
            'patch format is not valid - one ":" expected in a single key-value json patch: ',
        ),
        (
            {"patches": ['{"op": "add", "path": "/spec/x", "value": "a:b"}']},
            "spec.patches",
            'patch format is not valid - one ":" expected in a single key-value json patch:  "value": "a:b"',
        ),
        (
            {"patches": ['{"op": "remove", "path": "/metadata/name"}']},
            "spec.patches",
            'patching is valid only for elements under /spec/ only:  "path": "/metadata/name"',
        ),
        ({"patches": ['{"path": "/spec/x"}']}, "spec.patches[0]", "needs op and path"),
        (
            {"patches": ['{"op": "copy", "from": "/status/x", "path": "/spec/x"}']},
            "spec.patches[0]",
            "only /spec may be patched",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "data"}]},
            "spec.volumeRestoreOverrides[0]",
            "must provide at least one overriden field",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "", "labels": {}}]},
            "spec.volumeRestoreOverrides[0].volumeName",
            "must provide a volume name",
        ),
    ],
)
def test_restores_that_are_refused(spec: dict[str, Any], field: str, words: str) -> None:
    (cause,) = validate_restore(restore(**spec), context())
    assert cause.field == field
    assert words in cause.message


def test_restores_that_are_admitted() -> None:
    for status in (READY, {"phase": "Failed"}, {}):
        for uid in ("u-vm", "u-other", None):
            assert validate_restore(restore(), context(status=status, uid=uid)) == []
    assert validate_restore(restore(virtualMachineSnapshotName="x"), context()) == []
    for path in ("/spec/x", "/metadata/labels/a"):
        patch = f'{{"op": "replace", "path": "{path}", "value": "b"}}'
        assert validate_restore(restore(patches=[patch]), context()) == []


def test_only_the_engine_patches_as_it_likes() -> None:
    patch = '{"op": "add", "path": "/spec/x", "value": {"a": "b:c"}}'
    assert validate_restore(restore(patches=[patch]), context())
    assert validate_restore(restore(patches=[patch]), Context(privileged=True)) == []


@pytest.mark.parametrize(
    "domain", [{"devices": {"tpm": {"persistent": True}}}, {"firmware": {"bootloader": {"efi": {"persistent": True}}}}]
)
def test_what_a_tpm_keeps_stays_with_its_machine(domain: dict[str, Any]) -> None:
    vm = {"metadata": {"name": "vm", "uid": "u-vm"}, "spec": {"template": {"spec": {"domain": domain}}}}
    known = {("VirtualMachineSnapshot", "s"): snapshot(READY), ("VirtualMachine", "vm"): vm}

    def find(kind: str, _namespace: str, name: str) -> dict[str, Any]:
        if (kind, name) not in known:
            raise Missing("not found")
        return known[kind, name]

    assert validate_restore(restore(), Context(find=find)) == []
    (cause,) = validate_restore(restore(target={**VM, "name": "new"}), Context(find=find))
    assert (cause.field, cause.message) == (
        "spec",
        "Restore to a different VM is not supported when snapshotted VM has backend storage (persistent TPM or EFI)",
    )


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
