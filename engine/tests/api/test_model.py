# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api import crd, kinds, model
from turtles.api.language import Field, Struct

CRDS = {found["spec"]["names"]["kind"]: found for found in crd.crds()}


def structural(schema: dict[str, Any], path: str) -> None:
    """Check the rules of structural schemas (Kubernetes documentation, "Specifying a structural schema")."""
    free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
    assert "type" in schema or free, path
    for name, below in schema.get("properties", {}).items():
        assert below.get("description") or path == "", f"{path}.{name} has no documentation"
        structural(below, f"{path}.{name}")
    if "additionalProperties" in schema:
        assert "properties" not in schema, path
        structural(schema["additionalProperties"], f"{path}.*")
    if schema.get("type") == "array":
        structural(schema["items"], f"{path}[]")
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            assert key in schema["items"]["required"], path
    for name in schema.get("required", ()):
        assert name in schema["properties"], path


@pytest.mark.parametrize("kind", ["VirtualMachine", "VirtualMachineInstance"])
def test_crd_is_structural_and_serves_both_versions(kind):
    found = CRDS[kind]
    versions = {version["name"]: version for version in found["spec"]["versions"]}
    assert [name for name, version in versions.items() if version["storage"]] == ["v1"]
    assert versions["v1alpha3"]["deprecated"]
    assert versions["v1alpha3"]["deprecationWarning"] == (
        "kubevirt.io/v1alpha3 is now deprecated and will be removed in a future release."
    )
    assert versions["v1"]["schema"] == versions["v1alpha3"]["schema"]
    structural(versions["v1"]["schema"]["openAPIV3Schema"], "")


def test_names_columns_and_subresources():
    vm, vmi = (CRDS[kind]["spec"] for kind in ("VirtualMachine", "VirtualMachineInstance"))
    assert vm["names"]["shortNames"] == ["vm", "vms"]
    assert vmi["names"]["shortNames"] == ["vmi", "vmis"]
    assert vm["names"]["categories"] == vmi["names"]["categories"] == ["all"]
    assert vm["versions"][0]["subresources"] == {"status": {}}
    assert "subresources" not in vmi["versions"][0]
    columns = vmi["versions"][0]["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == [
        "Age",
        "Phase",
        "IP",
        "NodeName",
        "Ready",
    ]
    assert [column["name"] for column in columns if column.get("priority")] == ["Live-Migratable", "Paused"]
    assert [column["name"] for column in vm["versions"][0]["additionalPrinterColumns"]] == ["Age", "Status", "Ready"]


def test_kind():
    assert kinds.VM.version == "v1"
    assert kinds.VMI.crd_name == "virtualmachineinstances.kubevirt.io"


def all_fields(owner: Struct):
    for found in owner.fields.values():
        yield found
        below = getattr(found.type, "item", found.type)
        if isinstance(below, Struct) and found.refusal is None:
            yield from all_fields(below)


def test_every_field_is_documented():
    found: list[Field] = list(all_fields(model.VM))
    assert len(found) > 200
    for field in found:
        assert field.doc.endswith("."), field.name


def test_unsupported_fields_are_kept_by_the_schema():
    spec = CRDS["VirtualMachineInstance"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    probe = spec["properties"]["livenessProbe"]
    assert probe["x-kubernetes-preserve-unknown-fields"]
    assert probe["description"].endswith("This field is not supported by this engine.")
    assert "spec.livenessProbe" in model.leaf_fields(False)
    assert "spec.domain.devices.disks[].disk.bus" in model.leaf_fields(True)
