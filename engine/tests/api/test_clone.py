# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clones are admitted."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.clone import default, validate, validate_update
from turtles.api.kinds.snapshot.common import patch_causes

VM = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "vm"}


def clone(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "c", "namespace": "ns"}, "spec": {"source": VM, **spec}}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"source": {**VM, "kind": "Pod"}}, "spec.source"),
        ({"source": {**VM, "apiGroup": "snapshot.kubevirt.io"}}, "spec.source"),
        ({"target": {**VM, "kind": "Pod", "name": "new"}}, "spec.target"),
        ({"target": VM}, "spec.target.name"),
        ({"labelFilters": ["a", "a*b"]}, "spec.labelFilters[1]"),
        ({"template": {"annotationFilters": ["!!a"]}}, "spec.template.annotationFilters[0]"),
        ({"newMacAddresses": {"default": "02:00"}}, "spec.newMacAddresses.default"),
        ({"patches": ['{"op": "remove", "path": "/metadata/name"}']}, "spec.patches[0]"),
        ({"volumeNamePolicy": "InPlace"}, "spec.volumeNamePolicy"),
    ],
)
def test_clones_that_are_refused(spec: dict[str, Any], field: str) -> None:
    (cause,) = validate(clone(**spec))
    assert cause.field == field


def test_clones_that_are_admitted() -> None:
    assert validate(clone()) == []
    spec = {"target": {**VM, "name": "new"}, "labelFilters": ["*", "!a/*", "b"], "newSMBiosSerial": "s"}
    assert validate(clone(**spec, newMacAddresses={"default": "02-00-00-00-00-01"})) == []


def test_a_copy_gets_a_name() -> None:
    assert default(clone(), DEFAULT_CONTEXT, lambda: "abcde")["spec"]["target"] == {**VM, "name": "clone-vm-abcde"}
    named = clone(target={**VM, "name": "new"})
    assert default(named, DEFAULT_CONTEXT) == named


def test_a_spec_stays_as_it_is() -> None:
    assert validate_update(clone(), clone()) == []
    (cause,) = validate_update(clone(newSMBiosSerial="s"), clone())
    assert cause.message == "VirtualMachineClone spec is immutable"


def test_only_the_engine_leaves_labels_out() -> None:
    spec = {"patches": ['{"op": "remove", "path": "/metadata/labels/a"}']}
    assert [*patch_causes(spec, DEFAULT_CONTEXT)]
    assert not [*patch_causes(spec, Context(privileged=True))]


@pytest.mark.parametrize("value", [None, [], {}, {"spec": None}, {"spec": {"source": 1}}, {"spec": {"source": {}}}])
def test_anything_is_judged(value: Any) -> None:
    assert validate(value)
    assert default(value if isinstance(value, dict) else {}, DEFAULT_CONTEXT) is not None
