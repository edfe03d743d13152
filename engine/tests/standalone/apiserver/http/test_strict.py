# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields that a body has twice or that its kind doesn't have, by fieldValidation; and how values are read.

The words, and what is said of which body, are those of Kubernetes' own integration tests of field validation.
"""

import json

import pytest
import yaml

from turtles.standalone.apiserver.wire.bodies import repeated_keys

from ..conftest import WIDGET_PATH, Server, widget

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
JSON, MERGE = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"

POD_YAML = b"""apiVersion: v1
kind: Pod
metadata:
  name: other
  name: twice
  unknownMeta: 1
spec:
  unknown1: val1
  unknownDupe: a
  unknownDupe: b
  restartPolicy: Never
  restartPolicy: Always
  containers:
  - name: c
    image: i
    unknownNested: 1
    imagePullPolicy: Always
    imagePullPolicy: Never
"""
POD_LINES = [
    'line 5: key "name" already set in map',
    'line 10: key "unknownDupe" already set in map',
    'line 12: key "restartPolicy" already set in map',
    'line 18: key "imagePullPolicy" already set in map',
]
POD_JSON = b"""{"metadata": {"name": "other", "name": "twice", "unknownMeta": 1},
"spec": {"unknown1": 1, "unknownDupe": 1, "unknownDupe": 2, "restartPolicy": "Never", "restartPolicy": "Always",
"containers": [{"name": "c", "image": "i", "unknownNested": 1, "imagePullPolicy": "Always",
"imagePullPolicy": "Never"}]}}"""
POD_FIELDS = [
    'duplicate field "metadata.name"',
    'unknown field "metadata.unknownMeta"',
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
    'duplicate field "spec.restartPolicy"',
    'unknown field "spec.containers[0].unknownNested"',
    'duplicate field "spec.containers[0].imagePullPolicy"',
]
SORTED = [
    'unknown field "metadata.unknownMeta"',
    'unknown field "spec.containers[0].unknownNested"',
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
]


def warnings(headers: dict) -> list[str]:
    found = headers.get("Warning", "").removeprefix("299 - ").split(", 299 - ")
    return [json.loads(one) for one in found if one]


@pytest.mark.parametrize(
    ("body", "media", "why", "warned"),
    [
        (POD_JSON, "application/json", ", ".join(POD_FIELDS), POD_FIELDS),
        (
            POD_YAML,
            "application/yaml",
            ", ".join(["yaml: unmarshal errors:\n  " + "\n  ".join(POD_LINES), *SORTED]),
            [*POD_LINES, *SORTED],
        ),
        # JSON is YAML, and judged as what it is called.
        (
            b'{"metadata":{"name":"twice"},\n"spec":{"containers":[{"name":"c",\n"name":"d","image":"i"}]}}',
            "application/yaml",
            'yaml: unmarshal errors:\n  line 3: key "name" already set in map',
            ['line 3: key "name" already set in map'],
        ),
    ],
    ids=["json", "yaml", "json as yaml"],
)
def test_bodies(server: Server, body: bytes, media: str, why: str, warned: list[str]) -> None:
    code, status = server.call("POST", f"{PODS}?dryRun=All&fieldValidation=Strict", body, media)
    assert (code, status["reason"]) == (400, "BadRequest")
    prefix = 'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
    assert status["message"] == prefix + why
    for query in ("", "&fieldValidation=Warn"):
        code, headers, _ = server.raw("POST", f"{PODS}?dryRun=All{query}", body, media)
        assert (code, warnings(headers)) == (201, warned)
    code, headers, raw = server.raw("POST", f"{PODS}?dryRun=All&fieldValidation=Ignore", body, media)
    assert (code, warnings(headers), json.loads(raw)["metadata"]["name"]) == (201, [], "twice")


def test_custom_resources(server: Server) -> None:
    body = b"""{"apiVersion": "example.io/v1", "kind": "Widget", "metadata": {"name": "w", "odd": 1},
    "spec": {"size": "small", "size": "large", "more": 1, "more": 2}}"""
    texts = [
        'duplicate field "spec.size"',
        'duplicate field "spec.more"',
        'unknown field "metadata.odd"',
        'unknown field "spec.more"',
    ]
    code, status = server.call("POST", f"{WIDGET_PATH}?dryRun=All&fieldValidation=Strict", body)
    assert (code, status["message"].partition("strict decoding error: ")[2]) == (400, ", ".join(texts))
    code, headers, _ = server.raw("POST", f"{WIDGET_PATH}?dryRun=All", body)
    assert (code, warnings(headers)) == (201, texts)
    body = b"metadata: {name: w}\nspec:\n  size: small\n  size: large\n  parts: []\n  parts:\n  - name: a\n"
    lines = ['line 4: key "size" already set in map', 'line 7: key "parts" already set in map']
    code, status = server.call("POST", f"{WIDGET_PATH}?fieldValidation=Strict", body, "application/yaml")
    assert (code, status["message"].partition("strict decoding error: ")[2]) == (
        400,
        "yaml: unmarshal errors:\n  " + "\n  ".join(lines),
    )
    code, headers, _ = server.raw("POST", f"{WIDGET_PATH}?dryRun=All", body, "application/yaml")
    assert (code, warnings(headers)) == (201, lines)


@pytest.mark.parametrize(
    ("media", "body", "texts"),
    [
        (
            JSON,
            b'[{"op":"add","path":"/data/b","value":"1","foo":2},{"op":"add","path":"/x","path":"/what","value":1}]',
            [
                'json patch unknown field "[0].foo"',
                'json patch duplicate field "[1].path"',
                'unknown field "what"',
            ],
        ),
        (MERGE, b'{"data":{"a":"1","a":"2"},"odd":1}', ['duplicate field "data.a"', 'unknown field "odd"']),
        (STRATEGIC, b'{"data":{"a":"1","a":"2"},"odd":1}', ['duplicate field "data.a"', 'unknown field "odd"']),
    ],
)
def test_patches(server: Server, media: str, body: bytes, texts: list[str]) -> None:
    server.call("POST", CONFIG_MAPS, {"metadata": {"name": "patched"}, "data": {"a": "0"}})
    path = f"{CONFIG_MAPS}/patched?dryRun=All"
    code, status = server.call("PATCH", f"{path}&fieldValidation=Strict", body, media)
    assert (code, status["reason"]) == (422, "Invalid")
    assert status["message"].endswith(f": strict decoding error: {', '.join(texts)}")
    assert [one["field"] for one in status["details"]["causes"]] == ["patch"]
    code, headers, _ = server.raw("PATCH", path, body, media)
    assert (code, warnings(headers)) == (200, texts)
    code, headers, _ = server.raw("PATCH", f"{path}&fieldValidation=Ignore", body, media)
    assert (code, warnings(headers)) == (200, [])


@pytest.mark.parametrize("name", ["applied", "applied-again"])
def test_applied_configurations(server: Server, name: str) -> None:
    if name == "applied-again":
        server.call("POST", CONFIG_MAPS, {"metadata": {"name": name}})
    path = f"{CONFIG_MAPS}/{name}?dryRun=All&fieldManager=me"
    body = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  a: x\n  a: y\n".encode()
    line = 'line 7: key "a" already set in map'
    code, status = server.call("PATCH", f"{path}&fieldValidation=Strict", body, APPLY)
    text = f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {line}"
    assert (code, status["message"]) == (400, text)
    code, headers, raw = server.raw("PATCH", path, body, APPLY)
    assert (code // 100, warnings(headers), json.loads(raw)["data"]) == (2, [line], {"a": "y"})
    assert warnings(server.raw("PATCH", f"{path}&fieldValidation=Ignore", body, APPLY)[1]) == []


def test_an_applied_scale(server: Server) -> None:
    server.call("POST", WIDGET_PATH, widget("scaled-strictly"))
    body = b"apiVersion: autoscaling/v1\nkind: Scale\nspec:\n  replicas: 1\n  replicas: 2\n"
    path = f"{WIDGET_PATH}/scaled-strictly/scale?fieldManager=me&force=true"
    code, status = server.call("PATCH", f"{path}&fieldValidation=Strict", body, APPLY)
    assert (code, status["message"].rpartition("\n  ")[2]) == (400, 'line 5: key "replicas" already set in map')
    code, headers, _ = server.raw("PATCH", path, body, APPLY)
    assert (code, warnings(headers)) == (200, ['line 5: key "replicas" already set in map'])


@pytest.mark.parametrize(
    ("path", "body", "texts"),
    [
        (
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            b'{"spec":{"resourceAttributes":{"verb":"get","verb":"list","resource":"pods","odd":1}},"more":2}',
            [
                'duplicate field "spec.resourceAttributes.verb"',
                'unknown field "spec.resourceAttributes.odd"',
                'unknown field "more"',
            ],
        ),
        (
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            b'{"spec":{"audiences":[],"expirationSeconds":600,"odd":1}}',
            ['unknown field "spec.odd"'],
        ),
        (f"{PODS}/posted/binding", b'{"target":{"name":"n1","odd":1}}', ['unknown field "target.odd"']),
        (f"{PODS}/posted/eviction", b'{"metadata":{"name":"posted"},"odd":1}', ['unknown field "odd"']),
    ],
)
def test_reviews_and_subresources(server: Server, path: str, body: bytes, texts: list[str]) -> None:
    server.call("POST", PODS, {"metadata": {"name": "posted"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    code, status = server.call("POST", f"{path}?fieldValidation=Strict", body)
    assert (code, status["message"].partition(": strict decoding error: ")[2]) == (400, ", ".join(texts))
    code, headers, _ = server.raw("POST", f"{path}?dryRun=All", body)
    assert (code, warnings(headers)) == (201, texts)
    code, headers, _ = server.raw("POST", f"{path}?dryRun=All&fieldValidation=Ignore", body)
    assert (code, warnings(headers)) == (201, [])
    server.call("DELETE", f"{PODS}/posted?gracePeriodSeconds=0")


@pytest.mark.parametrize("path", [CONFIG_MAPS, "/apis/authentication.k8s.io/v1/selfsubjectreviews"])
@pytest.mark.parametrize("character", ["\r", "\n", "\t", "\0", "\x1b", "\x7f"])
def test_a_field_whose_name_no_header_can_have(server: Server, path: str, character: str) -> None:
    body = {"metadata": {"name": "odd"}, f"a{character}b": 1}
    code, headers, _ = server.raw("POST", f"{path}?dryRun=All", body)
    assert (code, headers["Warning"]) == (201, '299 - "unknown field \\"a b\\""')


def test_what_an_alias_repeats_is_no_key_twice(server: Server) -> None:
    body = b"metadata: {name: aliases}\ndata: &d {a: x}\nmetadata2: *d\nmetadata3: {<<: *d, a: z}\n"
    code, headers, _ = server.raw("POST", f"{CONFIG_MAPS}?dryRun=All", body, "application/yaml")
    assert (code, warnings(headers)) == (201, ['unknown field "metadata2"', 'unknown field "metadata3"'])


def test_keys_of_further_documents_do_not_count() -> None:
    assert repeated_keys(b"a: 1\na: 2\n---\nb: 1\nb: [\n") == ['line 2: key "a" already set in map']
    assert repeated_keys(b"") == []


# -- values

FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def defined(server: Server, name: str) -> str:
    schema = {"type": "object", "properties": {"spec": FREE}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": name, "kind": name.capitalize()}
    body = {"metadata": {"name": f"{name}.values.example.io"}, "spec": {
        "group": "values.example.io", "scope": "Cluster", "names": names, "versions": [version]}}  # fmt: skip
    assert server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)[0] == 201
    return f"/apis/values.example.io/v1/{name}"


@pytest.fixture(scope="module")
def values(server: Server):
    path = defined(server, "numbers")
    yield path
    server.call("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/numbers.values.example.io")


def test_numbers_come_back_as_go_writes_them(server: Server, values: str) -> None:
    body = b'{"metadata":{"name":"json"},"spec":{"a":1e3,"b":1.0,"c":[2.0,{"d":-3.0}],"e":1.5,"f":1e20,"g":7}}'
    code, _, raw = server.raw("POST", values, body)
    assert code == 201
    wanted = b'"spec":{"a":1000,"b":1,"c":[2,{"d":-3}],"e":1.5,"f":100000000000000000000,"g":7}'
    assert wanted in raw
    assert wanted in server.raw("GET", f"{values}/json")[2]
    code, _, raw = server.raw("PATCH", f"{values}/json", b'{"spec":{"a":2e3}}', MERGE)
    assert (code, b'"a":2000,' in raw) == (200, True)


def test_a_schema_sees_a_number_as_it_was_sent(server: Server) -> None:
    body = b'{"metadata":{"name":"fraction"},"spec":{"size":"small","replicas":2.0}}'
    code, status = server.call("POST", WIDGET_PATH, body)
    text = ".spec.replicas accessor error: 2 is of the type float64, expected int64"
    assert (code, text in status["details"]["causes"][0]["message"]) == (422, True), status


def test_a_number_of_a_built_in_kind_must_be_what_it_is(server: Server) -> None:
    body = b'{"metadata":{"name":"n"},"spec":{"containers":[{"name":"c","image":"i"}],"activeDeadlineSeconds":1.0}}'
    code, status = server.call("POST", f"{PODS}?dryRun=All", body)
    assert (code, "activeDeadlineSeconds of type int64" in status["message"]) == (400, True)


def test_yaml_is_read_as_kubernetes_reads_it(server: Server, values: str) -> None:
    body = b"""metadata: {name: yaml}
spec: {mac: 52:54:00:12:34:56, time: 22:22, when: 2026-01-01T00:00:00Z, day: 2026-01-01, e: 1e3, f: 1.0, o: 0o17,
  old: 010, hex: 0x1f, on: on, none: ~, text: "1e3", version: 1.2.3, half: .5}
"""
    code, obj = server.call("POST", values, body, "application/yaml")
    assert code == 201, obj
    assert obj["spec"] == {
        "mac": "52:54:00:12:34:56", "time": "22:22", "when": "2026-01-01T00:00:00Z", "day": "2026-01-01", "e": 1000,
        "f": 1, "o": 15, "old": 8, "hex": 31, "true": True, "none": None, "text": "1e3", "version": "1.2.3",
        "half": 0.5,
    }  # fmt: skip
    raw = server.raw("GET", f"{values}/yaml", headers={"Accept": "application/yaml"})[2]
    assert b"text: '1e3'" in raw, "YAML that go-yaml would read as a number"
    assert yaml.safe_load(raw)["spec"] == obj["spec"]
    code, status = server.call("POST", values, b"metadata: {name: x}\nspec: {a: .inf}\n", "application/yaml")
    assert (code, status["reason"]) == (400, "BadRequest")
