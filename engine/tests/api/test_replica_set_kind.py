# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kinds.replicaset import validate

from .objects import put, talk_vm

SELECTOR = "spec.selector"
TEMPLATE = "spec.template"
RESERVED = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited"


def talk_replica_set() -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": talk_vm()["spec"]["template"]["spec"]}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        (TEMPLATE, None, TEMPLATE, "missing virtual machine template."),
        (f"{TEMPLATE}.metadata.labels", {"app": "db"}, SELECTOR, "selector does not match labels."),
        (
            f"{TEMPLATE}.metadata.labels",
            {"app": "web", "kubevirt.io/created-by": "x"},
            f"{TEMPLATE}.metadata.labels",
            RESERVED,
        ),
        (
            f"{TEMPLATE}.spec.domain.devices.disks.0.name",
            "x",
            f"{TEMPLATE}.spec.domain.devices.disks[0].name",
            f"{TEMPLATE}.spec.domain.devices.disks[0].Name 'x' not found.",
        ),
    ],
)
def test_what_is_wrong_is_said_as_kubevirt_says_it(path: str, value: object, field: str, message: str) -> None:
    replica_set = talk_replica_set()
    put(replica_set, path, value)
    assert [(cause.field, cause.message) for cause in validate(replica_set)] == [(field, message)]


def test_annotations_of_the_template_are_judged_with_its_instances() -> None:
    replica_set = talk_replica_set()
    replica_set["spec"]["template"]["metadata"]["annotations"] = {"hooks.kubevirt.io/hookSidecars": "[]"}
    assert validate(replica_set) == []
