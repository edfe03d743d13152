# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
from typing import Any

import pytest

from turtles.api import crd
from turtles.api.kinds.pool import POOL, validate, validate_update, warn

from .objects import put, talk_vm

PATH = "spec.virtualMachineTemplate.spec"


def talk_pool(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": talk_vm()["spec"]}
    selector = {"matchLabels": {"app": "web"}}
    return {
        "apiVersion": "pool.kubevirt.io/v1beta1",
        "kind": "VirtualMachinePool",
        "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": selector, "virtualMachineTemplate": template, **spec},
    }


def test_a_pool_with_everything_is_accepted() -> None:
    policy = {
        "sortPolicy": "Oldest",
        "selectors": {
            "labelSelector": {"matchLabels": {"a": "b"}},
            "nodeSelectorRequirementMatcher": [{"key": "rack", "operator": "Gt", "values": ["1"]}],
        },
    }
    pool = talk_pool(
        paused=False,
        nameGeneration={"appendIndexToConfigMapRefs": True, "appendIndexToSecretRefs": False},
        maxUnavailable="50%",
        scaleInStrategy={"proactive": {"selectionPolicy": policy, "statePreservation": "Offline"}},
        updateStrategy={"proactive": {"selectionPolicy": policy}},
        autohealing={"startUpFailureThreshold": 1, "minFailingToStartDuration": "1m30s"},
    )
    assert (validate(pool), warn(pool)) == ([], [])


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("spec.virtualMachineTemplate", None, "spec.template", "missing virtual machine template."),
        ("spec.virtualMachineTemplate.metadata", {}, "spec.selector", "selector does not match labels."),
        (f"{PATH}.running", None, f"{PATH}.running", "RunStrategy must be specified"),
        (
            f"{PATH}.template.spec.domain.devices.disks.0.name",
            "x",
            f"{PATH}.template.spec.domain.devices.disks[0].name",
            f"{PATH}.template.spec.domain.devices.disks[0].Name 'x' not found.",
        ),
        ("spec.maxUnavailable", 0, "spec.maxUnavailable", "maxUnavailable must be greater than 0"),
        ("spec.maxUnavailable", "10", "spec.maxUnavailable", "maxUnavailable percentage must end with %"),
        (
            "spec.maxUnavailable",
            "ten%",
            "spec.maxUnavailable",
            'maxUnavailable percentage value "ten" is invalid: strconv.Atoi: parsing "ten": invalid syntax',
        ),
        (
            "spec.maxUnavailable",
            "9" * 5000 + "%",
            "spec.maxUnavailable",
            'maxUnavailable percentage value "999999999999999999…" is invalid: strconv.Atoi: parsing '
            '"999999999999999999…": value out of range',
        ),
        (
            "spec.maxUnavailable",
            "101%",
            "spec.maxUnavailable",
            "maxUnavailable percentage value 101 must be between 1 and 100",
        ),
        ("spec.replicas", -1, "spec.replicas", "spec.replicas must be between 0 and 2147483647"),
        (
            "spec.autohealing",
            {"minFailingToStartDuration": "soon"},
            "spec.autohealing.minFailingToStartDuration",
            "spec.autohealing.minFailingToStartDuration: 'soon' is not a duration; one looks like 24h or 1h30m",
        ),
        (
            "spec.scaleInStrategy",
            {"proactive": {"statePreservation": "Never"}},
            "spec.scaleInStrategy.proactive.statePreservation",
            'spec.scaleInStrategy.proactive.statePreservation: Unsupported value: "Never": supported values: '
            '"Disabled", "Offline", "Online"',
        ),
    ],
)
def test_refused(path: str, value: Any, field: str, message: str) -> None:
    (cause,) = validate(put(talk_pool(), path, value))
    assert (cause.field, cause.message) == (field, message)


def test_the_selector_stays() -> None:
    old = talk_pool()
    new = copy.deepcopy(old)
    new["spec"]["replicas"] = 5
    assert validate_update(new, old) == []
    new["spec"]["selector"]["matchLabels"]["tier"] = "web"
    new["spec"]["virtualMachineTemplate"]["metadata"]["labels"]["tier"] = "web"
    (cause,) = validate_update(new, old)
    assert (cause.field, cause.message) == ("spec.selector", "selector is immutable after creation.")
    new["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert validate_update(new, old) == []


def test_memory_isnt_kept() -> None:
    (warning,) = warn(talk_pool(scaleInStrategy={"opportunistic": {"statePreservation": "Online"}}))
    assert warning.startswith("spec.scaleInStrategy.opportunistic.statePreservation: Online does what Offline does")


def test_the_definition() -> None:
    found = crd.crd(POOL)["spec"]
    assert found["names"]["shortNames"] == ["vmpool", "vmpools"]
    assert [(each["name"], each["storage"]) for each in found["versions"]] == [("v1beta1", True), ("v1alpha1", False)]
    assert found["versions"][0]["subresources"]["scale"]["labelSelectorPath"] == ".status.labelSelector"
    spec = found["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert spec["replicas"]["minimum"] == 0
    healing = spec["autohealing"]["properties"]
    assert healing["startUpFailureThreshold"]["minimum"] == 1
    sort_policy = spec["updateStrategy"]["properties"]["proactive"]["properties"]["selectionPolicy"]["properties"]
    assert "Random" in sort_policy["sortPolicy"]["enum"]
