# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turtles.api import crd
from turtles.api.kinds.preset import PRESET, validate
from turtles.virt_api import manifests
from turtles.virt_api.admission import Admission


def preset(**spec: Any) -> dict[str, Any]:
    """KubeVirt's example vmi-preset-small, with other parts of its spec."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstancePreset",
        "metadata": {"name": "vmi-preset-small", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"kubevirt.io/vmPreset": "vmi-preset-small"}},
            "domain": {"devices": {}, "resources": {"requests": {"memory": "128M"}}},
            **spec,
        },
    }


def review(operation: str, obj: Any) -> dict[str, Any]:
    request = {"uid": "1", "operation": operation, "object": obj, "oldObject": preset()}
    answer = Admission(()).review("/vmipreset-validate", {"request": request})
    response: dict[str, Any] = answer["response"]
    return response


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
def test_it_is_admitted(operation: str) -> None:
    assert review(operation, preset(selector={})) == {"allowed": True, "uid": "1"}


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
@pytest.mark.parametrize(
    ("spec", "message", "field"),
    [
        ({"domain": None}, "missing domain.", "spec.domain"),
        ({"selector": None}, "spec.selector is a required field", "spec.selector"),
        ({"domain": {}}, "spec.domain.devices is a required field", "spec.domain.devices"),
        (
            {"domain": {"devices": {}, "firmware": {"bootloader": {"bios": {}, "efi": {}}}}},
            "spec.domain.firmware.bootloader has both EFI and BIOS configured, but they are mutually exclusive.",
            "spec.domain.firmware.bootloader",
        ),
        (
            {"domain": {"devices": {"disks": [{"name": "a", "disk": {}}, {"name": "a", "disk": {}}]}}},
            "spec.domain.devices.disks[1] and spec.domain.devices.disks[0] must not have the same Name.",
            "spec.domain.devices.disks[1].name",
        ),
    ],
)
def test_refusals_name_the_field(operation: str, spec: dict[str, Any], message: str, field: str) -> None:
    response = review(operation, preset(**spec))
    assert not response["allowed"]
    assert response["status"]["details"]["causes"][0] | {"reason": ""} == {
        "reason": "",
        "message": message,
        "field": field,
    }


@pytest.mark.parametrize("domain", [{"ioThreadsPolicy": "few"}, {"firmware": {"uuid": "me"}}])
def test_its_instances_are_judged_for_the_rest(domain: dict[str, Any]) -> None:
    assert review("CREATE", preset(domain={"devices": {}, **domain}))["allowed"]


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
def test_a_wrong_selector_has_a_warning(operation: str) -> None:
    response = review(operation, preset(selector={"matchExpressions": [{"key": "a", "operator": "In"}]}))
    assert response["allowed"]
    assert response["warnings"] == [
        "spec.selector.matchExpressions[0].values: must be specified when `operator` is 'In' or 'NotIn'; "
        "this is admitted, and selects nothing"
    ]


def test_what_is_being_deleted_is_left_alone() -> None:
    gone = preset(selector=None)
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert review("UPDATE", gone) == {"allowed": True, "uid": "1"}


JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda below: st.dictionaries(
        st.sampled_from(["metadata", "spec", "selector", "domain", "devices", "cpu"]), below, max_size=3
    ),
)


@given(JSON)
def test_any_json_is_judged(obj: Any) -> None:
    assert isinstance(validate(obj), list)


def test_definition_and_roles() -> None:
    found = crd.crd(PRESET)["spec"]
    v1, v1alpha3 = found["versions"]
    assert (v1["storage"], v1alpha3["storage"]) == (False, True)
    assert v1["deprecationWarning"] == (
        "kubevirt.io/v1 VirtualMachineInstancePresets is now deprecated and will be removed in v2."
    )
    assert found["names"]["shortNames"] == ["vmipreset", "vmipresets"]
    rules = {
        obj["metadata"]["name"]: [rule for rule in obj["rules"] if PRESET.plural in rule["resources"]]
        for obj in manifests.objects()
        if obj["kind"] == "ClusterRole"
    }
    assert "deletecollection" in rules["kubevirt.io:edit"][0]["verbs"]
    assert rules["kubevirt.io:view"][0]["verbs"] == ["get", "list", "watch"]
