# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi import former

from .objects import put, talk_vm

HERE = "spec.dataVolumeTemplate[0]"
PVC: dict[str, Any] = {"resources": {"requests": {"storage": "1Gi"}}}
SOURCE = {"http": {"url": "https://example.org/disk.img"}}


def machine(spec: dict[str, Any] | None = None, *, claim: str = "disk", **metadata: Any) -> dict[str, Any]:
    vm = talk_vm()
    vm["metadata"]["namespace"] = "ns"
    put(vm, "spec.template.spec.volumes.0", {"name": "containerdisk", "persistentVolumeClaim": {"claimName": claim}})
    wanted = {"pvc": PVC, "source": SOURCE} if spec is None else spec
    vm["spec"]["dataVolumeTemplates"] = [{"metadata": {"name": "disk", **metadata}, "spec": wanted}]
    return vm


@pytest.mark.parametrize(
    ("vm", "type_", "field", "message"),
    [
        (
            machine(name=""),
            "FieldValueRequired",
            f"{HERE}.name",
            f"'name' field must not be empty for DataVolumeTemplate entry {HERE}.name.",
        ),
        (machine({"source": SOURCE}), "FieldValueInvalid", f"{HERE}.PVC.Storage", "Missing Data volume PVC or Storage"),
        (
            machine({"pvc": PVC, "storage": {}, "source": SOURCE}),
            "FieldValueInvalid",
            f"{HERE}.PVC.Storage",
            "Duplicate storage definition, both target storage and target pvc defined",
        ),
        (
            machine({"pvc": {**PVC, "dataSource": {"kind": "x"}}, "source": SOURCE}),
            "FieldValueInvalid",
            f"{HERE}.source",
            "External population is incompatible with Source and SourceRef",
        ),
        (
            machine({"pvc": PVC}),
            "FieldValueInvalid",
            f"{HERE}.source.sourceRef",
            "Data volume should have either Source, SourceRef, or be externally populated",
        ),
        (machine({"pvc": PVC, "source": {}}), "FieldValueInvalid", f"{HERE}.source", "Missing dataVolume valid source"),
        (
            machine({"storage": {}, "source": {**SOURCE, "blank": {}}}),
            "FieldValueInvalid",
            f"{HERE}.source",
            "Multiple dataVolume sources",
        ),
        (
            machine(claim="other"),
            "FieldValueRequired",
            HERE,
            f"DataVolumeTemplate entry {HERE} must be referenced in the VMI template's 'volumes' list",
        ),
        (
            machine(namespace="elsewhere"),
            "FieldValueInvalid",
            "spec.dataVolumeTemplates[0]",
            "Embedded DataVolume namespace elsewhere differs from VM namespace ns",
        ),
    ],
)
def test_refused_as_kubevirt_does(vm: dict, type_: str, field: str, message: str) -> None:
    (cause,) = vms.validate(vm)
    assert (cause.type, cause.field, cause.message) == (type_, field, message)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {"storage": {}, "sourceRef": {"kind": "DataSource", "name": "x"}},
        {"pvc": {**PVC, "dataSourceRef": {"kind": "x"}}},
    ],
)
def test_templates_that_are_sound(spec: dict | None) -> None:
    vm = machine(spec)
    assert vms.validate(vm) == []


def test_other_faults_are_told_alone() -> None:
    vm = put(machine(), "spec.template.spec.domain.devices.disks.0.name", "other")
    assert [cause.field for cause in vms.validate(vm)] == ["spec.template.spec.domain.devices.disks[0].name"]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.volumes.0", {"name": "containerdisk"}, "write containerDisk with the same image"),
        ("spec.networks.0", {"name": "default"}, "write multus with the networkName"),
        ("spec.domain.devices.disks.0.name", "mydisk", "Give disk and volume the same name"),
        ("spec.domain.devices.interfaces.0", {"name": "default", "slirp": {}}, "instead of slirp write masquerade: {}"),
    ],
)
def test_what_to_write_today(path: str, value: Any, words: str) -> None:
    vm = put(talk_vm(), path.replace("spec", "spec.template.spec", 1), value)
    assert vms.validate(vm)
    (hint,) = former.of_template(vm)
    assert hint.startswith("spec.template.spec.")
    assert words in hint


@pytest.mark.parametrize("obj", [None, 1, {}, {"spec": {"template": {"spec": {"volumes": [1], "networks": {}}}}}])
def test_any_shape_is_read(obj: Any) -> None:
    assert former.of_template(obj) == []
