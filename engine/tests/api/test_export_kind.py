# SPDX-License-Identifier: GPL-3.0-or-later
"""Which exports are admitted, and how what belongs to them is called."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api import exports
from turtles.api.kinds.export import EXPORT, validate

CLAIM = {"kind": "PersistentVolumeClaim", "name": "disk"}
VM = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "web"}
SNAPSHOT = {"apiGroup": "snapshot.kubevirt.io", "kind": "VirtualMachineSnapshot", "name": "before"}


def export(source: dict[str, Any], name: str = "e", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"source": source, **spec}}


@pytest.mark.parametrize("source", [CLAIM, {**CLAIM, "apiGroup": ""}, VM, SNAPSHOT])
def test_what_can_be_exported(source: dict[str, Any]) -> None:
    assert validate(export(source, ttlDuration="1h", tokenSecretRef="mine")) == []


@pytest.mark.parametrize(
    ("source", "spec", "field", "message"),
    [
        ({**CLAIM, "name": ""}, {}, "spec.source.name", "PVC name must not be empty"),
        ({**CLAIM, "apiGroup": "v1"}, {}, "spec.source.APIGroup", "PVC API group must be missing or blank"),
        ({**VM, "name": ""}, {}, "spec.source.name", "Virtual Machine name must not be empty"),
        ({**VM, "apiGroup": "apps"}, {}, "spec.source.APIGroup", "VM API group must be kubevirt.io"),
        ({**SNAPSHOT, "name": ""}, {}, "spec.source.name", "VMSnapshot name must not be empty"),
        ({"kind": SNAPSHOT["kind"], "name": "s"}, {}, "spec.source.APIGroup", "VMSnapshot API group must be"),
        ({**VM, "kind": "Pod"}, {}, "spec.source.kind", "invalid kind"),
        (CLAIM, {"ttlDuration": "a day"}, "spec.ttlDuration", "is not a duration"),
        (CLAIM, {"ttlDuration": "-1s"}, "spec.ttlDuration", "must not be negative"),
    ],
)
def test_what_can_not(source: dict[str, Any], spec: dict[str, Any], field: str, message: str) -> None:
    (cause,) = validate(export(source, **spec))
    assert (cause.field, message in cause.message) == (field, True), cause


def test_the_spec_stays() -> None:
    assert EXPORT.validate_update is not None
    (cause,) = EXPORT.validate_update(export(VM), export(CLAIM), None)  # type: ignore[arg-type]
    assert cause.field == "spec"


def test_names_fit_into_services() -> None:
    assert exports.name_of(export(VM, "web")) == "virt-export-web"
    long = exports.name_of(export(VM, "a" * 80))
    assert len(long) == 63
    assert long != exports.name_of(export(VM, "a" * 81))
    assert "." not in exports.name_of(export(VM, "web.example"))
    assert exports.token_secret(export(VM, "web")) == "export-token-web"
    assert exports.token_secret(export(VM, "web", tokenSecretRef="mine")) == "mine"


def test_the_longest_time() -> None:
    given = export(VM, ttlDuration="1h30m")
    given["metadata"]["creationTimestamp"] = "2026-12-01T10:00:00Z"
    assert str(exports.expires_at(given)) == "2026-12-01 11:30:00+00:00"
    del given["spec"]["ttlDuration"]
    assert str(exports.expires_at(given)) == "2026-12-01 12:00:00+00:00"
