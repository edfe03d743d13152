# SPDX-License-Identifier: GPL-3.0-or-later
"""The packed schemas of built-in kinds, beside the models of the official client."""

import re

import kubernetes
import kubernetes.client.models as models
import pytest

from turtles.standalone.apiserver.schema import types
from turtles.standalone.apiserver.schema.kinds import BUILTIN
from turtles.standalone.apiserver.wire.quantities import canonical

#: Types that the models write as object.
FREE = ("IntOrString", "JSON", "RawExtension", "FieldsV1", "SubresourceStatus")


def definitions() -> dict:
    return types.documents()


def model_of(name: str) -> type | None:
    """The client's class of a definition; Events of both groups have a prefix."""
    group, version, kind = name.rsplit(".", 2)
    prefix = {"core": "Core", "events": "Events", "storage": "Storage", "authentication": "Authentication"}
    candidates = [f"{version.capitalize()}{kind}", f"{prefix.get(group.rpartition('.')[2], '')}{version.upper()}{kind}"]
    return next((getattr(models, one) for one in candidates if hasattr(models, one)), None)


def described(schema: dict) -> str:
    """A property's type as the client's models write it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition(".")[2]
        return {"Time": "datetime", "MicroTime": "datetime", "Quantity": "str"}.get(name, name)
    kind = schema.get("type")
    if kind == "array":
        return f"List[{described(schema['items'])}]"
    if kind == "string" and schema.get("format") == "byte":
        return "bytes"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"Dict[str, {described(values)}]" if values else "object"
    return {"string": "str", "integer": "int", "boolean": "bool", "number": "float"}.get(str(kind), "object")


def test_they_are_those_of_the_installed_client() -> None:
    compared, plain = 0, re.compile(r"\b(?:[A-Z][a-z0-9]*)?V\d+(?:alpha\d+|beta\d+)?")
    for name, definition in definitions().items():
        model = model_of(name)
        if model is None or "properties" not in definition:
            continue
        names = {json: python for python, json in model.attribute_map.items()}
        assert set(definition["properties"]) == set(names), name
        for field, schema in definition["properties"].items():
            told = plain.sub("", model.openapi_types[names[field]]).replace(" ", "")
            wanted = described(schema).replace(" ", "")
            known = any(one in wanted for one in FREE)
            assert known or told in (wanted, wanted.replace("bytes", "str")), (name, field, told, wanted)
        compared += 1
    assert compared > 200


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: f"{kind.api_version}-{kind.kind}")
def test_every_served_kind_has_one(kind) -> None:
    one = types.of_kind(kind)
    assert {"apiVersion", "kind", "metadata"} <= set(one.fields)
    definition = definitions()[types.definition_name(kind)]
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    assert gvk in definition["x-kubernetes-group-version-kind"]


def test_lists_say_how_they_merge() -> None:
    spec = types.definition("io.k8s.api.core.v1.PodSpec").fields
    assert (spec["containers"].list_type, spec["containers"].keys) == ("map", ("name",))
    assert (spec["containers"].patch_merge, spec["containers"].patch_key) == (True, "name")
    ports = spec["containers"].element.fields["ports"]
    assert (ports.keys, ports.patch_key) == (("containerPort", "protocol"), "containerPort")
    assert spec["tolerations"].list_type == "atomic"
    assert types.definition(types.META).fields["finalizers"].list_type == "set"
    assert spec["nodeSelector"].atomic


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("0.5", "500m"),
        ("1.5Gi", "1536Mi"),
        ("1023", "1023"),
        ("1000000", "1M"),
        ("0.1Ki", "102400m"),
        ("12e6", "12e6"),
        ("1.123456789123", "1123456790n"),
        ("0Gi", "0"),
        ("-1500m", "-1500m"),
    ],
)
def test_quantities_are_stored_in_canonical_form(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1Zi", "NaN", "--1", "1e"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        canonical(text)


def test_one_version_for_schemas_and_server() -> None:
    assert f"{kubernetes.__version__.partition('.')[0]}" == types.KUBERNETES.partition(".")[2]
