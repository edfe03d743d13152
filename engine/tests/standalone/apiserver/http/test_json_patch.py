# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON patches: what json-patch v4, which kube-apiserver uses, does beyond RFC 6902."""

import copy

import pytest

from turtles.standalone.apiserver.wire.patch import Inapplicable, json_patch

DOCUMENT = {"a": {"b": 1, "-1": "key"}, "list": ["x", "y", "z"], "deep": [{"items": [1, 2]}, {"items": [3, 4]}]}


def patched(*operations: dict) -> dict:
    document = copy.deepcopy(DOCUMENT)
    result = json_patch(document, list(operations))
    assert document == DOCUMENT, "the caller's own stays"
    return result


@pytest.mark.parametrize(
    ("operation", "path", "value"),
    [
        ({"op": "replace", "path": "/a/new", "value": 2}, ("a", "new"), 2),
        ({"op": "copy", "from": "/a/none", "path": "/a/new"}, ("a", "new"), None),
        ({"op": "copy", "from": "/a/b", "path": "/a/new"}, ("a", "new"), 1),
        ({"op": "replace", "path": "/list/-1", "value": "n"}, ("list",), ["x", "y", "n"]),
        ({"op": "remove", "path": "/list/-3"}, ("list",), ["y", "z"]),
        ({"op": "add", "path": "/list/-1", "value": "n"}, ("list",), ["x", "y", "z", "n"]),
        ({"op": "add", "path": "/list/-4", "value": "n"}, ("list",), ["n", "x", "y", "z"]),
        ({"op": "add", "path": "/list/-", "value": "n"}, ("list",), ["x", "y", "z", "n"]),
        ({"op": "copy", "from": "/list/-1", "path": "/list/-4"}, ("list",), ["z", "x", "y", "z"]),
        ({"op": "move", "from": "/list/0", "path": "/list/-1"}, ("list",), ["y", "z", "x"]),
        ({"op": "move", "from": "/list/-1", "path": "/list/0"}, ("list",), ["z", "x", "y"]),
        ({"op": "move", "from": "/a/b", "path": "/a/c"}, ("a",), {"c": 1, "-1": "key"}),
        ({"op": "replace", "path": "/deep/-1/items/-2", "value": 9}, ("deep",), [{"items": [1, 2]}, {"items": [9, 4]}]),
        ({"op": "test", "path": "/list/-1", "value": "z"}, ("list",), ["x", "y", "z"]),
        ({"op": "replace", "path": "/a/-1", "value": "n"}, ("a",), {"b": 1, "-1": "n"}),
    ],
)
def test_what_is_done(operation: dict, path: tuple[str, ...], value: object) -> None:
    result = patched(operation)
    for one in path:
        result = result[one]
    assert result == value


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/none/new", "value": 2},
        {"op": "replace", "path": "/list/3", "value": "n"},
        {"op": "replace", "path": "/list/-4", "value": "n"},
        {"op": "replace", "path": "/list/-", "value": "n"},
        {"op": "remove", "path": "/a/none"},
        {"op": "remove", "path": "/list/-4"},
        {"op": "add", "path": "/list/-5", "value": "n"},
        {"op": "add", "path": "/none/new", "value": "n"},
        {"op": "copy", "from": "/none/new", "path": "/a/new"},
        {"op": "copy", "from": "/list/3", "path": "/a/new"},
        {"op": "copy", "path": "/a/new"},
        {"op": "move", "from": "/a/none", "path": "/a/new"},
        {"op": "move", "from": "/a", "path": "/a/new"},
        {"op": "move", "path": "/a/new"},
        {"op": "test", "path": "/a/none", "value": 1},
        {"op": "test", "path": "/list/-4", "value": "x"},
    ],
)
def test_what_is_refused(operation: dict) -> None:
    with pytest.raises(Inapplicable):
        patched(operation)
