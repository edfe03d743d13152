# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api import crd
from turtles.api.kind import CREATE, DELETE, UPDATE, Kind, Version
from turtles.api.kinds import KINDS
from turtles.api.kinds.vm import VM
from turtles.api.kinds.vmi import VMI
from turtles.api.language import OPEN_OBJECT, Field, Struct
from turtles.kube.kubevirt import resource

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


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_kind_is_consistent(kind):
    assert [version.storage for version in kind.versions].count(True) == 1
    found = CRDS[kind.kind]["spec"]
    for version in found["versions"]:
        structural(version["schema"]["openAPIV3Schema"], "")
    assert (found["group"], found["scope"]) == (kind.group, "Namespaced" if kind.namespaced else "Cluster")
    assert kind.status_subresource == ("status" in found["versions"][0].get("subresources", {}))
    # A webhook that would find nothing to call, and a function that no webhook leads to
    mutating = {operation for webhook in kind.webhooks if webhook.mutating for operation in webhook.operations}
    validating = {operation for webhook in kind.webhooks if not webhook.mutating for operation in webhook.operations}
    assert (CREATE in mutating, UPDATE in mutating) == (bool(kind.default), bool(kind.default_update))
    assert ({CREATE, UPDATE} <= validating) == bool(kind.validate)
    assert DELETE not in validating or kind.check
    assert kind.rights, "nobody may read it"


def test_names_are_unique():
    for names in (
        [kind.kind for kind in KINDS],
        [kind.crd_name for kind in KINDS],
        [name for kind in KINDS for name in (kind.plural, kind.singular, *kind.short_names)],
        [webhook.name for kind in KINDS for webhook in kind.webhooks],
    ):
        assert len(names) == len(set(names))


def test_a_kind_may_be_cluster_scoped_of_another_group_and_scaled():
    kind = Kind(
        kind="Herd",
        plural="herds",
        group="herds.example.org",
        versions=(Version("v1alpha1", storage=True),),
        namespaced=False,
        schema=Struct("A herd.", Field("spec", OPEN_OBJECT, "Its size.")),
        status_subresource=True,
        scale=True,
    )
    found = crd.crd(kind)
    assert (found["metadata"]["name"], found["spec"]["scope"]) == ("herds.herds.example.org", "Cluster")
    (version,) = found["spec"]["versions"]
    assert version["subresources"]["scale"]["labelSelectorPath"] == ".status.labelSelector"
    assert "additionalPrinterColumns" not in version, "the API server's own default is the age"
    assert resource(kind).path(None, "one") == "/apis/herds.example.org/v1alpha1/herds/one"


@pytest.mark.parametrize("kind", ["VirtualMachine", "VirtualMachineInstance"])
def test_both_versions_are_served(kind):
    found = CRDS[kind]
    versions = {version["name"]: version for version in found["spec"]["versions"]}
    assert [name for name, version in versions.items() if version["storage"]] == ["v1"]
    assert versions["v1alpha3"]["deprecated"]
    assert versions["v1alpha3"]["deprecationWarning"] == (
        "kubevirt.io/v1alpha3 is now deprecated and will be removed in a future release."
    )
    assert versions["v1"]["schema"] == versions["v1alpha3"]["schema"]


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
    assert VM.version == "v1"
    assert VMI.crd_name == "virtualmachineinstances.kubevirt.io"


def all_fields(owner: Struct):
    for found in owner.fields.values():
        yield found
        below = getattr(found.type, "item", found.type)
        if isinstance(below, Struct) and found.refusal is None:
            yield from all_fields(below)


def test_every_field_is_documented():
    found: list[Field] = list(all_fields(VM.schema))
    assert len(found) > 200
    for field in found:
        assert field.doc.endswith("."), field.name


def test_unsupported_fields_are_kept_by_the_schema():
    spec = CRDS["VirtualMachineInstance"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    domain = spec["properties"]["domain"]["properties"]
    profile = CRDS["StorageProfile"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    strategy = profile["properties"]["spec"]["properties"]["cloneStrategy"]
    assert strategy["x-kubernetes-preserve-unknown-fields"]
    assert strategy["description"].endswith("This field is not supported by this engine.")
    tracking = domain["devices"]["properties"]["disks"]["items"]["properties"]["changedBlockTracking"]
    assert tracking["type"] == "boolean"
    assert tracking["description"].endswith("This field has no effect in this engine.")


@pytest.mark.parametrize(
    "path", ["configMap", "cloudInitNoCloud.secretRef", "cloudInitConfigDrive.networkDataSecretRef"]
)
def test_the_api_server_gives_references_an_empty_name(path):
    (version, *_) = CRDS["VirtualMachineInstance"]["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["volumes"]["items"]
    for name in path.split("."):
        schema = schema["properties"][name]
    assert schema["properties"]["name"]["default"] == ""
