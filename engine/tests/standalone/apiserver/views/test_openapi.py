# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI documents in all three forms, and clients that read them."""

import gzip

import pytest

from turtles.standalone.apiserver.schema.kinds import BUILTIN

from ..conftest import Server, any_kubectl

POD = "io.k8s.api.core.v1.PodSpec"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def references(value: object) -> set[str]:
    if isinstance(value, list):
        return set().union(*(references(item) for item in value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*(references(item) for item in value.values()))


def fields(raw: bytes) -> dict[int, list]:
    """A protobuf message: number -> values, undecoded."""
    found: dict[int, list] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte, at = raw[at], at + 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while at < len(raw):
        tag = varint()
        if tag & 7 == 0:
            value: object = varint()
        else:
            assert tag & 7 == 2
            size = varint()
            value, at = raw[at : at + size], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def named(messages: list[bytes]) -> dict[str, dict[int, list]]:
    """NamedSchema and NamedPathItem: name -> value."""
    pairs = [fields(one) for one in messages]
    return {one[1][0].decode(): fields(one[2][0]) for one in pairs}


def test_version_2_defines_every_kind(server: Server) -> None:
    code, document = server.call("GET", "/openapi/v2", timeout=30)
    assert code == 200
    definitions = document["definitions"]
    found = [one for schema in definitions.values() for one in schema.get("x-kubernetes-group-version-kind", ())]
    for kind in BUILTIN:
        assert {"group": kind.group, "version": kind.version, "kind": kind.kind} in found
    assert {one.removeprefix("#/definitions/") for one in references(document)} <= set(definitions)
    containers = definitions[POD]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert containers["description"].startswith("List of containers belonging to the pod.")
    assert "x-go" not in str(definitions)
    widget = definitions["io.example.v1.Widget"]
    assert widget["properties"]["spec"]["properties"]["size"]["enum"] == ["small", "large"]
    assert widget["properties"]["metadata"]["$ref"].endswith(".ObjectMeta")
    patch = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    names = {one["name"] for one in patch["parameters"]}
    assert names == {"dryRun", "fieldManager", "fieldValidation", "force", "body"}
    assert "application/strategic-merge-patch+json" in patch["consumes"]


def test_version_2_in_protobuf_says_the_same(server: Server) -> None:
    _, _, raw = server.raw("GET", "/openapi/v2", headers={"Accept": PROTOBUF}, timeout=30)
    document = fields(raw)
    assert document[1] == [b"2.0"]
    definitions = named(fields(document[9][0])[1])
    _, other = server.call("GET", "/openapi/v2", timeout=30)
    assert set(definitions) == set(other["definitions"])
    spec = definitions[POD]
    properties = named(fields(spec[25][0])[1])
    assert set(properties) == set(other["definitions"][POD]["properties"])
    containers = properties["containers"]
    assert fields(containers[22][0])[1] == [b"array"]
    items = fields(fields(containers[23][0])[1][0])
    assert items[1] == [b"#/definitions/io.k8s.api.core.v1.Container"]
    extensions = {fields(one)[1][0].decode(): fields(fields(one)[2][0])[2][0] for one in containers[31]}
    assert extensions["x-kubernetes-patch-merge-key"] == b'"name"'
    paths = named(fields(document[8][0])[2])
    patch = fields(paths["/api/v1/namespaces/{namespace}/pods/{name}"][8][0])
    queries = [fields(fields(fields(fields(one)[1][0])[2][0])[3][0])[4][0] for one in patch[8][:-1]]
    assert b"dryRun" in queries


def test_documents_are_compressed_for_those_who_take_it(server: Server) -> None:
    _, plain_headers, plain = server.raw("GET", "/openapi/v2", timeout=30)
    _, headers, packed = server.raw("GET", "/openapi/v2", headers={"Accept-Encoding": "gzip"}, timeout=30)
    assert "Content-Encoding" not in plain_headers
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Vary"] == "Accept-Encoding, Accept"
    assert gzip.decompress(packed) == plain


def test_version_3_of_a_group(server: Server) -> None:
    _, index = server.call("GET", "/openapi/v3")
    for name, one in index["paths"].items():
        code, headers, _ = server.raw("GET", one["serverRelativeURL"], timeout=30)
        assert code == 200, name
        again = server.raw("GET", one["serverRelativeURL"], headers={"If-None-Match": headers["ETag"]})
        assert again[0] == 304
    _, core = server.call("GET", "/openapi/v3/api/v1", timeout=30)
    schemas = core["components"]["schemas"]
    assert {one.removeprefix("#/components/schemas/") for one in references(core)} <= set(schemas)
    assert schemas["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["allOf"] == [{"$ref": f"#/components/schemas/{POD}"}]
    quantity = schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity["oneOf"] == [{"type": "string"}, {"type": "number"}]
    _, other = server.call("GET", "/openapi/v3/apis/example.io/v1")
    assert "io.example.v1.Widget" in other["components"]["schemas"]
    assert server.call("GET", "/openapi/v3/apis/nothing/v1")[0] == 404


@any_kubectl
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("pod.spec.containers", ["imagePullPolicy", "volumeMounts", "startupProbe", "limits", "grpc"]),
        ("pvc.spec", ["accessModes", "storageClassName"]),
        ("crd.spec.versions", ["openAPIV3Schema", "additionalPrinterColumns"]),
        ("widgets.spec", ["size", "replicas", "parts"]),
    ],
)
def test_kubectl_explains(server: Server, what: str, words: list[str]) -> None:
    told = server.kubectl("explain", what, "--recursive")
    assert [word for word in words if word not in told] == []


@any_kubectl
def test_kubectl_finds_a_typo(server: Server) -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: typo}\nspec: {containers: [{name: a, image: b, imagee: c}]}\n"
    told = server.kubectl("apply", "-f", "-", stdin=text, check=False)
    assert "imagee" in told
    assert server.call("GET", "/api/v1/namespaces/default/pods/typo")[0] == 404
