# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.objects import talk_vmi
from turtles.api.kind import Context, Refusal
from turtles.api.kinds.vmi import VMI
from turtles.api.selectors import selector_causes, selects

MARK = "virtualmachinepreset.kubevirt.io/"
EXCLUDE = "virtualmachineinstancepresets.admission.kubevirt.io/exclude"


def preset(name: str, domain: dict[str, Any], selector: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": selector or {}, "domain": {"devices": {}, **domain}},
    }


def defaulted(*presets: dict[str, Any], domain: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """The VirtualMachineInstance of the talk, without its memory, as it is admitted beside presets."""
    vmi = talk_vmi()
    vmi["metadata"] |= metadata
    vmi["spec"]["domain"].pop("resources")
    vmi["spec"]["domain"] |= domain or {}
    before, stored = copy.deepcopy(vmi), copy.deepcopy(presets)
    assert VMI.default
    found = VMI.default(vmi, Context(others=lambda kind, namespace: presets if namespace == "default" else ()))
    assert (vmi, presets) == (before, stored), "neither what was asked for nor what is cached changes"
    return found


def marks(vmi: dict[str, Any]) -> dict[str, str]:
    return {key.removeprefix(MARK): value for key, value in vmi["metadata"]["annotations"].items() if MARK in key}


PARTS = [
    pytest.param({"resources": {"requests": {"memory": "128M", "cpu": "1"}}}, id="requests"),
    pytest.param({"cpu": {"cores": 3}}, id="cpu"),
    pytest.param({"firmware": {"serial": "abc"}}, id="firmware"),
    pytest.param({"clock": {"timezone": "Europe/Berlin"}}, id="clock offset"),
    pytest.param({"clock": {"timer": {"hpet": {"present": False}}}}, id="clock timer"),
    pytest.param({"features": {"acpi": {"enabled": False}}}, id="features"),
    pytest.param({"devices": {"watchdog": {"name": "w", "i6300esb": {"action": "poweroff"}}}}, id="watchdog"),
]


def contains(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(contains(value.get(key), item) for key, item in wanted.items())
    return bool(value == wanted)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_given_where_the_machine_has_none(part: dict[str, Any]) -> None:
    vmi = defaulted(preset("small", part))
    assert contains(vmi["spec"]["domain"], part)
    assert marks(vmi) == {"small": "kubevirt.io/v1"}
    assert VMI.warn
    assert VMI.warn(vmi) == [
        "kubevirt.io/v1 VirtualMachineInstancePresets is now deprecated and will be removed in v2."
    ]


def test_what_is_no_part_is_not_given() -> None:
    vmi = defaulted(preset("disks", {"devices": {"disks": [{"name": "other"}]}, "memory": {"guest": "1Gi"}}))
    assert [disk["name"] for disk in vmi["spec"]["domain"]["devices"]["disks"]] == ["containerdisk", "cloudinitdisk"]
    assert vmi["spec"]["domain"]["memory"] == {}
    assert not marks(vmi)


def test_the_machine_keeps_its_own_and_takes_the_other_parts() -> None:
    small = preset("small", {"cpu": {"cores": 3}, "resources": {"requests": {"memory": "128M"}}})
    vmi = defaulted(small, domain={"cpu": {"cores": 1}})
    assert vmi["spec"]["domain"]["cpu"]["cores"] == 1
    assert vmi["spec"]["domain"]["resources"]["requests"]["memory"] == "128M"
    assert vmi["spec"]["domain"]["memory"]["guest"] == "128M", "defaults follow from what a preset gave"
    assert marks(vmi) == {"small": "kubevirt.io/v1"}


def test_requests_are_one_part() -> None:
    small = preset("small", {"resources": {"requests": {"memory": "128M", "cpu": "2"}}})
    vmi = defaulted(small, domain={"resources": {"requests": {"memory": "64M"}}})
    assert vmi["spec"]["domain"]["resources"]["requests"] == {"memory": "64M"}
    assert not marks(vmi), "nothing of the preset is in the machine"
    equal = defaulted(small, domain={"resources": {"requests": {"memory": "128000000", "cpu": "2000m"}}})
    assert marks(equal) == {"small": "kubevirt.io/v1"}, "an equal value in other words is the same"


def test_an_offset_is_given_only_where_there_is_no_clock() -> None:
    vmi = defaulted(
        preset("clock", {"clock": {"timezone": "Europe/Berlin", "timer": {"pit": {"present": False}}}}),
        domain={"clock": {"timer": {"hpet": {"present": False}}}},
    )
    assert "timezone" not in vmi["spec"]["domain"]["clock"]
    assert "pit" not in vmi["spec"]["domain"]["clock"]["timer"]


def test_presets_that_agree_are_all_given() -> None:
    vmi = defaulted(
        preset("b", {"cpu": {"cores": 2}, "features": {"acpi": {"enabled": False}}}),
        preset("a", {"cpu": {"cores": 2}, "firmware": {"serial": "abc"}}),
    )
    assert marks(vmi) == {"a": "kubevirt.io/v1", "b": "kubevirt.io/v1"}
    assert vmi["spec"]["domain"]["firmware"]["serial"] == "abc"
    assert vmi["spec"]["domain"]["features"]["acpi"]["enabled"] is False


def test_presets_that_contradict_each_other_are_refused_with_all_their_names() -> None:
    with pytest.raises(Refusal) as refused:
        defaulted(
            preset("small", {"cpu": {"cores": 1}, "resources": {"requests": {"memory": "64M"}}}),
            preset("large", {"cpu": {"cores": 8}, "resources": {"requests": {"memory": "8Gi"}}}),
            preset("same", {"cpu": {"cores": 1}}),
        )
    text = str(refused.value)
    assert text.startswith("VirtualMachinePresets cannot be applied due to conflicts: [presets 'same' and 'large'")
    assert "presets 'small' and 'large' conflict: [spec.resources.requests[memory]: 64M != 8Gi, spec.cpu: " in text
    assert "'same' and 'small'" not in text


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_machine_can_be_excluded(value: str) -> None:
    vmi = defaulted(preset("small", {"cpu": {"cores": 3}}), annotations={EXCLUDE: value})
    assert bool(marks(vmi)) == (value == "false")
    excluded = defaulted(
        preset("a", {"cpu": {"cores": 1}}), preset("b", {"cpu": {"cores": 2}}), annotations={EXCLUDE: "true"}
    )
    assert not marks(excluded), "not even a contradiction counts"


def test_other_namespaces_and_other_labels_are_left_alone() -> None:
    chosen = preset("small", {"cpu": {"cores": 3}}, {"matchLabels": {"kubevirt.io/size": "small"}})
    assert marks(defaulted(chosen))
    assert not marks(defaulted(chosen, namespace="other"))
    assert not marks(defaulted(chosen, labels={"kubevirt.io/size": "large"}))
    assert not marks(defaulted(chosen, labels=None))


def test_presets_with_faults_are_for_nobody() -> None:
    broken = preset("broken", {"cpu": {"cores": 3}}, {"matchExpressions": [{"key": "a", "operator": "Near"}]})
    empty = preset("empty", {})
    empty["spec"]["domain"] = None
    assert not marks(defaulted(broken, empty))


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ({}, {}, True),
        (None, {"a": "1"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        (
            {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]},
            {"a": "1"},
            False,
        ),
    ],
)
def test_selectors(selector: dict[str, Any] | None, labels: dict[str, str], selected: bool) -> None:
    assert not selector_causes(selector, "spec.selector")
    assert selects(selector, labels) is selected


@pytest.mark.parametrize(
    ("requirement", "field"),
    [
        ({"operator": "In"}, "values"),
        ({"operator": "NotIn", "values": []}, "values"),
        ({"operator": "Exists", "values": ["1"]}, "values"),
        ({"operator": "Near"}, "operator"),
    ],
)
def test_selectors_with_faults_name_the_field(requirement: dict[str, Any], field: str) -> None:
    (cause,) = selector_causes({"matchExpressions": [{"key": "a", **requirement}]}, "spec.selector")
    assert cause.field == f"spec.selector.matchExpressions[0].{field}"
    assert cause.message.startswith(cause.field)


PIECES = st.sampled_from([part.values[0] for part in PARTS])


@given(st.lists(PIECES, max_size=4), st.lists(PIECES, max_size=2))
def test_applying_again_changes_nothing(given_: list[dict[str, Any]], own: list[dict[str, Any]]) -> None:
    presets = [preset(f"p{index}", part) for index, part in enumerate(given_)]
    domain: dict[str, Any] = {}
    for part in own:
        domain |= {key: value for key, value in part.items() if key != "devices"}
    try:
        once = defaulted(*presets, domain=copy.deepcopy(domain))
    except Refusal:
        return
    assert VMI.default
    again = VMI.default(once, Context(others=lambda kind, namespace: presets))
    assert again["spec"] == once["spec"]
    assert marks(again).items() >= marks(once).items()
