# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clones are admitted."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kind import DEFAULT_CONTEXT
from turtles.api.kinds.clone import default, validate, validate_update

VM = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "vm"}


def clone(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "c", "namespace": "ns"}, "spec": {"source": VM, **spec}}


NEGATION = "negation character (!); FilterRules: NegationChar can be only used at the beginning of the filter"
WILDCARD = "wildcard character (*); FilterRules: WildcardChar can be only at the end of the filter"


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"source": {**VM, "kind": "Pod"}}, "spec.Source.Kind", "Source kind is not supported"),
        ({"source": {**VM, "apiGroup": ""}}, "spec.Source.APIGroup", "Source's APIGroup cannot be empty"),
        ({"source": {**VM, "name": ""}}, "spec.Source.Name", "Source's name cannot be empty"),
        ({"target": {**VM, "kind": "Pod", "name": "new"}}, "spec.Target.Kind", "Target kind is not supported"),
        (
            {"target": VM},
            "spec.target.name",
            "Target name cannot be equal to source name when both are VirtualMachines",
        ),
        ({"labelFilters": ["*", "!"]}, "spec.labels", "a negation character is not a valid filter"),
        ({"labelFilters": [""]}, "spec.labels", "spec.labels filter is empty"),
        (
            {"labelFilters": ["a", "a*b"]},
            "spec.labels",
            f"spec.labels filter a*b is invalid: cannot contain a {WILDCARD}",
        ),
        (
            {"template": {"annotationFilters": ["!!a"]}},
            "spec.template.annotations",
            f"spec.template.annotations filter !!a is invalid: cannot contain a {NEGATION}",
        ),
        (
            {"newMacAddresses": {"default": "02:00"}},
            "spec.newMacAddresses.default",
            "interface default has malformed MAC address (02:00).",
        ),
        ({"patches": ["{"]}, "spec.patches[0]", "patch is not valid JSON ({)"),
        ({"patches": ["[" * 50_000]}, "spec.patches[0]", f"patch is not valid JSON ({'[' * 50_000})"),
        (
            {"volumeNamePolicy": "InPlace"},
            "spec.volumeNamePolicy",
            'VolumeNamePolicy "InPlace" is not supported',
        ),
    ],
)
def test_clones_that_are_refused(spec: dict[str, Any], field: str, message: str) -> None:
    (cause,) = validate(clone(**spec))
    assert (cause.field, cause.message) == (field, message)


def test_causes_come_in_order() -> None:
    spec = {"source": {"kind": "", "name": ""}, "labelFilters": ["!"], "annotationFilters": ["!"]}
    fields = ["annotations", "labels", "Source.Kind", "Source.APIGroup", "Source", "Source.Name"]
    assert [cause.field for cause in validate(clone(**spec))] == [f"spec.{field}" for field in fields]


def test_clones_that_are_admitted() -> None:
    assert validate(clone()) == []
    spec = {"target": {**VM, "name": "new"}, "labelFilters": ["*", "!a/*", "b"], "newSMBiosSerial": "s"}
    addresses = {"default": "02-00-00-00-00-01", "dotted": "0200.0000.0001", "other": ""}
    assert validate(clone(**spec, newMacAddresses=addresses)) == []
    assert validate(clone(source={**VM, "apiGroup": "snapshot.kubevirt.io"}, labelFilters=["a b", "!_"])) == []


def test_what_patches_may_change_is_judged_of_the_restore() -> None:
    patches = ['{"op": "remove", "path": "/metadata/name"}', "[]", "1"]
    assert validate(clone(patches=patches)) == []


def test_a_copy_gets_a_name() -> None:
    assert default(clone(), DEFAULT_CONTEXT, lambda: "abcde")["spec"]["target"] == {**VM, "name": "clone-vm-abcde"}
    unnamed = clone(target={**VM, "name": ""})
    assert default(unnamed, DEFAULT_CONTEXT, lambda: "abcde")["spec"]["target"]["name"] == "clone-vm-abcde"
    named = clone(target={**VM, "name": "new"})
    assert default(named, DEFAULT_CONTEXT) == named


def test_a_spec_stays_as_it_is() -> None:
    assert validate_update(clone(), clone()) == []
    (cause,) = validate_update(clone(newSMBiosSerial="s"), clone())
    assert cause.message == "VirtualMachineClone spec is immutable"


@pytest.mark.parametrize("value", [None, [], {}, {"spec": None}, {"spec": {"source": 1}}, {"spec": {"source": {}}}])
def test_anything_is_judged(value: Any) -> None:
    assert validate(value)
    assert default(value if isinstance(value, dict) else {}, DEFAULT_CONTEXT) is not None
