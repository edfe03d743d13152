# SPDX-License-Identifier: GPL-3.0-or-later
"""The annotation for hook sidecars, as admission judges it."""

import json
from typing import Any

import pytest

from turtles.api.configuration_reader import from_kubevirt
from turtles.api.hook_sidecars import ANNOTATION, HookSidecarError, read
from turtles.api.kind import Context
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.validation import validate, validate_update

from .objects import talk_vmi


def metadata(value: Any) -> dict[str, Any]:
    return {"annotations": {ANNOTATION: value if isinstance(value, str) else json.dumps(value)}}


def test_none():
    assert read({}) == read(metadata("")) == read(metadata([])) == ()


def test_all_that_a_sidecar_may_have():
    hook = {"name": "cm", "key": "run.sh", "hookPath": "/usr/bin/onDefineDomain"}
    claim = {"name": "c", "volumePath": "/debug", "sharedComputePath": "/var/run/debug"}
    (found,) = read(
        metadata([{"image": "x", "imagePullPolicy": "Never", "args": ["--version"], "configMap": hook, "pvc": claim}])
    )
    assert (found.image, found.pull_policy, found.command, found.args) == ("x", "Never", (), ("--version",))
    assert found.config_map is not None
    assert (found.config_map.key, found.config_map.path) == ("run.sh", "/usr/bin/onDefineDomain")
    assert found.claim is not None
    assert (found.claim.path, found.claim.compute_path) == ("/debug", "/var/run/debug")


def shared(path: Any) -> list[dict[str, Any]]:
    return [{"image": "x", "pvc": {"name": "c", "volumePath": "/a", "sharedComputePath": path}}]


def program(path: str, key: str = "k", **more: Any) -> list[dict[str, Any]]:
    return [{"configMap": {"name": "cm", "key": key, "hookPath": path}, **more}]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ({"image": "x"}, "is no list of sidecars"),
        (["x"], "has no object in [0]"),
        ([{"image": "x"}] * 17, "has 17 sidecars, but at most 16 are accepted"),
        ([{}], "has neither image nor configMap in [0]"),
        ([{"command": ["/x"]}], "has a command in [0], but no image in which that is"),
        ([{"image": 7}], "has no text in [0].image"),
        ([{"image": "x"}, {"image": "y", "env": []}], "has 'env' in [1]; known are image, imagePullPolicy"),
        ([{"image": "x", "imagePullPolicy": "Often"}], "has 'Often' in [0].imagePullPolicy; use one of Always"),
        ([{"image": "x", "args": "--version"}], "has no list of texts in [0].args"),
        ([{"image": "x", "command": [1]}], "has no list of texts in [0].command"),
        ([{"image": "x", "configMap": {"name": "c", "key": "k"}}], "lacks [0].configMap.hookPath"),
        (program("usr/bin/onDefineDomain"), "use an absolute path without '.' and '..'"),
        (program("/usr/../etc/onDefineDomain"), "use an absolute path without '.' and '..'"),
        (program("/usr/bin/other"), "without an image its last part is one of onDefineDomain, preCloudInitIso"),
        (program("/usr/bin/onDefineDomain", key="../k"), "which is no key of a ConfigMap"),
        (shared("/"), "use an absolute path"),
        (shared("/var/run/kubevirt/sockets"), "which the launcher needs itself"),
        (shared("/run/kubevirt-private/x"), "which the launcher needs itself"),
        (shared("/var/run"), "which the launcher needs itself"),
        (shared("/usr"), "which the launcher needs itself"),
        (shared("/srv:/x"), "no colon"),
        (shared("/srv\n"), "use printable characters"),
    ],
)
def test_what_is_refused_with_the_place(value, words):
    with pytest.raises(HookSidecarError) as error:
        read(metadata(value))
    assert words in str(error.value)


GATE = {"developerConfiguration": {"featureGates": ["Sidecar"]}}
CONTEXT = Context(from_kubevirt({"spec": {"configuration": GATE}}))


def test_they_are_behind_their_gate():
    vmi = default(talk_vmi())
    vmi["metadata"].update(metadata([{"image": "x"}]))
    (cause,) = validate(vmi)
    assert cause.message.startswith("sidecar feature gate is not enabled in kubevirt-config")
    assert validate(vmi, CONTEXT) == []


def test_a_machines_sidecars_are_chosen_when_it_is_made():
    old, new = talk_vmi(), talk_vmi()
    new["metadata"].update(metadata([{"image": "x"}]))
    context = CONTEXT
    (cause,) = validate_update(new, old, context)
    assert (cause.message, cause.field) == (
        "hooks.kubevirt.io/hookSidecars can't be changed: the machine's Pod is made by it",
        "metadata.annotations",
    )
    assert validate_update(new, new, context) == []
