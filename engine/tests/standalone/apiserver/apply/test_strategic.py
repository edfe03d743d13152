# SPDX-License-Identifier: GPL-3.0-or-later
"""Strategic merge patches: what a real kube-apiserver makes of them, where nothing else is said."""

import copy

import pytest

from turtles.standalone.apiserver.apply.strategic import merge
from turtles.standalone.apiserver.schema import types
from turtles.standalone.apiserver.wire.errors import StatusError

POD = {
    "metadata": {"finalizers": ["a/a", "a/b"], "labels": {"x": "y"}},
    "spec": {
        "containers": [
            {"name": "a", "image": "x", "ports": [{"containerPort": 80}], "args": ["1"]},
            {"name": "b", "image": "y"},
        ],
        "tolerations": [{"key": "k"}],
        "imagePullSecrets": [{"name": "p"}],
    },
    "status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]},
}


def patched(patch: dict, kind: str = "core.v1.Pod", obj: dict = POD) -> dict:
    return merge(copy.deepcopy(obj), patch, types.definition(f"io.k8s.api.{kind}"))


def names(items: list[dict], key: str = "name") -> list[str]:
    return [item[key] for item in items]


def test_items_are_merged_by_the_key_of_their_type() -> None:
    result = patched({"spec": {"containers": [{"name": "b", "image": "z"}, {"name": "c", "image": "q"}]}})
    # New items come before those that only the server has.
    assert names(result["spec"]["containers"]) == ["a", "b", "c"]
    assert result["spec"]["containers"][1]["image"] == "z"
    assert names(patched({"spec": {"containers": [{"name": "c"}]}})["spec"]["containers"]) == ["c", "a", "b"]
    ports = [{"port": 80}, {"port": 81}]
    service = patched({"spec": {"ports": [{"port": 82}]}}, "core.v1.Service", {"spec": {"ports": ports}})
    assert names(service["spec"]["ports"], "port") == [82, 80, 81]


def test_the_same_name_of_a_list_in_two_types() -> None:
    secrets = {"imagePullSecrets": [{"name": "q"}]}
    assert names(patched({"spec": secrets})["spec"]["imagePullSecrets"]) == ["q", "p"]
    account = {"imagePullSecrets": [{"name": "p"}]}
    assert names(patched(secrets, "core.v1.ServiceAccount", account)["imagePullSecrets"]) == ["q"]


def test_other_lists_are_replaced() -> None:
    result = patched({"spec": {"tolerations": [{"key": "n"}], "containers": [{"name": "a", "args": ["2"]}]}})
    assert result["spec"]["tolerations"] == [{"key": "n"}]
    assert result["spec"]["containers"][0]["args"] == ["2"]
    assert result["spec"]["containers"][0]["ports"] == [{"containerPort": 80}]


def test_sets_of_plain_values() -> None:
    assert patched({"metadata": {"finalizers": ["a/c"]}})["metadata"]["finalizers"] == ["a/c", "a/a", "a/b"]
    removed = patched({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}})
    assert removed["metadata"]["finalizers"] == ["a/b"]
    order = {"finalizers": ["a/d"], "$setElementOrder/finalizers": ["a/b", "a/d", "a/a"]}
    assert patched({"metadata": order})["metadata"]["finalizers"] == ["a/b", "a/d", "a/a"]


def test_directives() -> None:
    assert names(patched({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}})["spec"]["containers"]) == ["b"]
    replaced = patched({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}})
    assert names(replaced["spec"]["containers"]) == ["z"]
    assert patched({"metadata": {"labels": {"$patch": "replace", "q": "r"}}})["metadata"]["labels"] == {"q": "r"}
    assert patched({"metadata": {"labels": {"$patch": "delete"}}})["metadata"]["labels"] == {}
    kept = patched({"metadata": {"labels": {"$retainKeys": ["n"], "n": "1"}}})
    assert kept["metadata"]["labels"] == {"n": "1"}
    wanted = [{"type": name} for name in "CBA"]
    order = {"conditions": [{"type": "C"}], "$setElementOrder/conditions": wanted}
    assert names(patched({"status": order})["status"]["conditions"], "type") == ["C", "B", "A"]


def test_null_removes() -> None:
    assert patched({"metadata": {"labels": None, "nothing": None}})["metadata"] == {"finalizers": ["a/a", "a/b"]}


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({"spec": {"containers": [{"image": "z"}]}}, "map: map[image:z] does not contain declared merge key: name"),
        ({"metadata": {"$patch": "wish"}}, "unknown patch type: wish in map: map[$patch:wish]"),
        ({"metadata": {"labels": {"$retainKeys": ["b"], "a": "1"}}}, "$retainKeys doesn't contain all of the fields"),
        ({"spec": {"containers": [{"$patch": "delete"}]}}, "delete patch type with no merge key defined"),
        (
            {"status": {"conditions": [{"type": "A"}], "$setElementOrder/conditions": [{"type": "B"}]}},
            "doesn't match $setElementOrder list",
        ),
    ],
)
def test_what_can_not_be_understood(patch: dict, text: str) -> None:
    with pytest.raises(StatusError) as found:
        patched(patch)
    assert found.value.code == 400
    assert text in str(found.value)
