# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said where a value fits none, or too many, of a schema's alternatives: as kube-openapi's validator does."""

from typing import Any

import pytest

from turtles.standalone.apiserver.schema.validation import validate

A, B = {"required": ["a"]}, {"required": ["b", "c"]}
LARGE, EVEN = {"minimum": 10}, {"multipleOf": 2}


@pytest.mark.parametrize(
    ("schema", "value", "wrong"),
    [
        ({"anyOf": [A, B]}, {"b": 1, "c": 1}, []),
        # What is wrong by the nearest alternative follows, wherever that is in the list.
        ({"anyOf": [B, A]}, {}, ['"x" must validate at least one schema (anyOf)', "x.a"]),
        ({"oneOf": [B, A]}, {}, ['"x" must validate one and only one schema (oneOf). Found none valid', "x.a"]),
        (
            {"oneOf": [A, B]},
            {"a": 1, "b": 1, "c": 1},
            ['"x" must validate one and only one schema (oneOf). Found 2 valid alternatives'],
        ),
        ({"oneOf": [A, B]}, {"a": 1}, []),
        ({"allOf": [LARGE, EVEN]}, 12, []),
        ({"allOf": [LARGE, EVEN]}, 13, ["x", '"x" must validate all the schemas (allOf)']),
        ({"allOf": [LARGE, EVEN]}, 3, ["x", "x", '"x" must validate all the schemas (allOf). None validated']),
        ({"not": A}, {"a": 1}, ['"x" must not validate the schema (not)']),
        ({"not": A}, {}, []),
    ],
)
def test_combinations(schema: dict[str, Any], value: Any, wrong: list[str]) -> None:
    causes = validate(value, schema, "x")
    shown = [one.message.removeprefix('Invalid value: "": ') if one.field == "<nil>" else one.field for one in causes]
    assert shown == wrong
