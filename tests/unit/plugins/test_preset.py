# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from api import Refused

SMALL = {"matchLabels": {"flavor": "small"}}


def stored(api):
    return api.get("virtualmachineinstancepresets", "default", "small")


def test_a_preset_is_made_changed_and_removed_once(api, run):
    options = {"name": "small", "selector": SMALL, "memory": "128Mi", "cpu": {"cores": 2}, "labels": {"team": "a"}}
    assert run("preset", check=True, **options)["changed"]
    assert stored(api) is None
    made = run("preset", **options)
    assert made["changed"]
    assert made["result"]["spec"] == {
        "selector": SMALL,
        "domain": {"devices": {}, "cpu": {"cores": 2}, "resources": {"requests": {"memory": "128Mi"}}},
    }
    assert not run("preset", **options)["changed"]
    assert made["result"] == run("preset_info", name="small", namespace="default")["resources"][0]

    changed = run("preset", name="small", memory="256Mi", cpu={"threads": 2})
    assert changed["diff"]["before"]["spec"]["domain"]["resources"]["requests"] == {"memory": "128Mi"}
    assert stored(api)["spec"] == {
        "selector": SMALL,
        "domain": {"devices": {}, "cpu": {"cores": 2, "threads": 2}, "resources": {"requests": {"memory": "256Mi"}}},
    }
    assert stored(api)["metadata"]["labels"] == {"team": "a"}

    assert run("preset", check=True, name="small", state="absent")["changed"]
    assert run("preset", name="small", state="absent")["result"] == {}
    assert stored(api) is None
    assert not run("preset", name="small", state="absent")["changed"]


def test_a_selector_is_replaced_whole(api, run):
    run("preset", name="small", selector=SMALL)
    run("preset", name="small", selector={"matchLabels": {"size": "s"}})
    assert stored(api)["spec"]["selector"] == {"matchLabels": {"size": "s"}}
    run("preset", name="small", selector={})
    assert stored(api)["spec"]["selector"] == {}
    assert not run("preset", name="small", selector={})["changed"]


def test_parts_of_a_domain_are_removed_by_null(api, run):
    run("preset", name="small", selector={}, domain={"features": {"acpi": {"enabled": False}}}, cpu={"cores": 2})
    run("preset", name="small", domain={"features": None})
    assert stored(api)["spec"]["domain"] == {"devices": {}, "cpu": {"cores": 2}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "128Mi"}, "selector: missing for a new preset"),
        ({"selector": {}, "memory": "lots"}, "memory: 'lots'"),
        ({"selector": {}, "name": "Not_a_name"}, "name: 'Not_a_name' isn't a Kubernetes name"),
        ({"selector": {}, "domain": {"guest": {}, "spec": {"cpu": {}}}}, "spec is in the wrong place"),
        ({"selector": {"matchLabels": {"a": 1}}}, "preset small.spec.selector.matchLabels.a: must be text"),
    ],
)
def test_bad_input_names_the_option(api, run, options, message):
    failed = run("preset", **{"name": "small", **options})
    assert message in failed.msg
    assert stored(api) is None


def test_the_servers_refusal_names_object_and_field(api, run):
    cause = {"reason": "FieldValueInvalid", "message": "must be a UUID", "field": "spec.domain.firmware.uuid"}
    api.refuse = lambda method, resource, obj: Refused(422, "Invalid", "no", causes=[cause])
    failed = run("preset", name="small", selector={}, domain={"firmware": {"uuid": "me"}})
    assert failed.msg == (
        "VirtualMachineInstancePreset default/small: refused: spec.domain.firmware.uuid: must be a UUID"
    )
