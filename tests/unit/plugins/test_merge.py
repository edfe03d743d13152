# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.turtles.kubevirt.plugins.module_utils import _merge as merge


def patch(live, desired, exact=frozenset()):
    return merge.merge_patch(live, merge.overlay(live, desired, exact=exact))


def test_what_the_server_added_is_no_difference():
    live = {"spec": {"machine": "q35", "disks": [{"name": "a", "disk": {"bus": "virtio"}}]}, "status": {"x": 1}}
    assert patch(live, {"spec": {"disks": [{"name": "a", "disk": {}}]}}) == {}


def test_lists_of_named_things_are_matched_by_name_in_any_order():
    live = {"volumes": [{"name": "a", "emptyDisk": {"capacity": "1Gi"}, "x": 1}, {"name": "b"}]}
    desired = {"volumes": [{"name": "b"}, {"name": "a", "emptyDisk": {"capacity": "2Gi"}}]}
    assert patch(live, desired) == {"volumes": [{"name": "b"}, {"name": "a", "emptyDisk": {"capacity": "2Gi"}, "x": 1}]}


def test_what_a_declared_list_does_not_name_goes():
    assert patch({"disks": [{"name": "a"}, {"name": "b"}]}, {"disks": [{"name": "a"}]}) == {"disks": [{"name": "a"}]}


def test_a_list_becomes_empty():
    assert patch({"disks": [{"name": "a"}]}, {"disks": []}) == {"disks": []}


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("disks", {"name": "a", "disk": {"bus": "sata"}}, {"name": "a", "cdrom": {"bus": "sata"}}),
        ("interfaces", {"name": "a", "bridge": {}, "model": "e1000"}, {"name": "a", "masquerade": {}}),
        ("networks", {"name": "a", "pod": {}}, {"name": "a", "multus": {"networkName": "n"}}),
        ("volumes", {"name": "a", "containerDisk": {"image": "x"}}, {"name": "a", "emptyDisk": {"capacity": "1Gi"}}),
    ],
)
def test_one_choice_takes_the_place_of_the_other(key, old, new):
    (item,) = patch({key: [old]}, {key: [new]})[key]
    assert item == {**{k: v for k, v in old.items() if k in ("name", "model")}, **new}


def test_cloud_init_data_in_another_form_replaces_the_old():
    live = {"cloudInitNoCloud": {"userDataBase64": "eA==", "networkData": "n"}}
    assert patch(live, {"cloudInitNoCloud": {"userData": "x"}}) == {
        "cloudInitNoCloud": {"userDataBase64": None, "userData": "x"}
    }


def test_labels_named_like_choices_stay():
    live = {"metadata": {"labels": {"pod": "a", "bridge": "b"}}}
    assert patch(live, {"metadata": {"labels": {"multus": "c"}}}) == {"metadata": {"labels": {"multus": "c"}}}


def test_null_removes_and_is_quiet_where_nothing_is():
    assert patch({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"b": None}}
    assert patch({"a": {"c": 2}}, {"a": {"b": None}}) == {}


def test_false_differs_from_zero_and_from_nothing():
    assert patch({"a": 0}, {"a": False}) == {"a": False}
    assert patch({}, {"a": False}) == {"a": False}
    assert patch({"a": 1}, {"a": 1.0}) == {}


def test_lists_without_names_are_merged_by_position_when_as_long():
    live = {"rules": [{"verbs": ["get"], "added": 1}]}
    assert patch(live, {"rules": [{"verbs": ["get"]}]}) == {}
    assert patch(live, {"rules": [{"verbs": ["get"]}, {"verbs": ["list"]}]}) == {
        "rules": [{"verbs": ["get"]}, {"verbs": ["list"]}]
    }


def test_a_schema_is_taken_whole_but_for_what_servers_drop():
    live = {"schema": {"properties": {"old": {"type": "string"}, "new": {"type": "string"}}}}
    exact = frozenset(("schema",))
    desired = {"schema": {"properties": {"new": {"type": "string", "description": "", "nullable": False}}}}
    assert patch(live, desired, exact) == {
        "schema": {"properties": {"old": None, "new": {"description": "", "nullable": False}}}
    }
    live = {"schema": {"properties": {"new": {"type": "string"}}}}
    assert patch(live, desired, exact) == {}


def test_later_declarations_win_and_named_items_are_joined():
    combined = merge.combine(
        {"spec": {"disks": [{"name": "a", "disk": {}}]}},
        {"spec": {"disks": [{"name": "b"}, {"name": "a", "cdrom": {}}]}},
    )
    assert combined == {"spec": {"disks": [{"name": "a", "cdrom": {}}, {"name": "b"}]}}


def test_nothing_given_is_changed_in_place():
    live, desired = {"a": {"b": [1]}}, {"a": {"c": {"d": None}}}
    merge.overlay(live, desired)
    assert (live, desired) == ({"a": {"b": [1]}}, {"a": {"c": {"d": None}}})
