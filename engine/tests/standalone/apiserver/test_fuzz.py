# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd requests by the thousand: none may end in a server error or hang, and memory stays what it is.

Objects are made from the schemas that the server itself publishes, then bent; paths, parameters, headers and patches
are bent too. fuzzing.py says how many and which.
"""

import copy
import json
import random
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings

from .conftest import WIDGET_PATH, WIDGETS, Server, widget
from .fuzzing import CONTENT, ODD, PATIENCE, REQUESTS, SEED, Client, Storm, bend, json_patch, judge

#: Kinds that change how the server treats others' requests: their writes are dry runs only.
DRY = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations", "apiservices", "customresourcedefinitions",
       "resourcequotas", "limitranges", "validatingadmissionpolicies")  # fmt: skip
METHODS = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
#: No namespace but these is used, and they are never deleted.
NAMESPACES = ("default", "fuzz")

PARTS = (
    "",
    "..",
    "%2e%2e",
    "%00",
    "%ff",
    "é",
    "x" * 300,
    "status",
    "scale",
    "a%2Fb",
    "%",
    "namespaces",
    "*",
    "~",
    "{}",
)
TEXTS = ("a", "b", "x1", "", "default", "1Gi", "1", "http", "TCP", "*", "10.0.0.1", "a.example.io", 80)
PARAMETERS = {
    "dryRun": ("All", "", "None"), "fieldValidation": ("Strict", "Warn", "Ignore", "x"), "fieldManager": ("a", "",
    "x" * 200),
    "force": ("true", "false", "x"), "limit": ("1", "0", "-1", "x", "99999999999999999999"), "pretty": ("true",),
    "continue": ("x", "e30", "eyJydiI6MX0", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsIm5zIjoiIiwibmFtZSI6IiJ9"),
    "labelSelector": ("a=b", "a in (b,c)", "!a", "a==", "a in (", "=,=", "é", "a notin ()", ",", "a>1", "a!=b,c"),
    "fieldSelector": ("metadata.name=a", "metadata.name!=a", "status.phase=x", "spec.nodeName=", "a=b", "=",
    "metadata.name"),
    "resourceVersion": ("0", "1", "-1", "x", "5", "99999999999999999999999"),
    "resourceVersionMatch": ("Exact", "NotOlderThan", "x"), "propagationPolicy": ("Foreground", "Orphan", "x"),
    "gracePeriodSeconds": ("0", "-5", "x", "1000000000000000000000"), "timeoutSeconds": ("1", "0", "-1", "x"),
    "includeObject": ("None", "Object", "x"), "sendInitialEvents": ("true", "x"), "as": ("Table",), "command": ("a",
    ""),
    "container": ("x", ""), "tailLines": ("-1", "x", "1"), "orphanDependents": ("true", "x"), "timeout": ("1s", "x",
    "0"),
}  # fmt: skip
ACCEPT = (
    "application/json",
    "*/*",
    "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "text/html",
    ";;;",
    "application/json;as=",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "a" * 3000,
    "application/json;q=x",
)
RAW = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":1}x', b'{"metadata":{"name":"\\ud800"}}', b"[" * 5000,
    b'{"a":' * 2000,
       b'{"metadata":{"name":"a"},"metadata":{"name":"b"}}', b"k8s\x00\n\x05", b"- a: [", b"a: !!python/object:x {}",
       b'{"kind":1,"apiVersion":[]}', b"NaN", b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}", b"&a [*a]",
    b"? {a: b} : c",
       b"\x00" * 100, b'"' + b"x" * 100_000 + b'"')  # fmt: skip


class Schemas:
    """Makes objects from the OpenAPI v3 documents of the server."""

    def __init__(self, server: Server) -> None:
        self._documents: dict[str, dict] = {}
        #: (group, version, kind) -> (document, schema)
        self._kinds: dict[tuple[str, str, str], tuple[dict, dict]] = {}
        paths = server.call("GET", "/openapi/v3")[1]["paths"]
        for entry in paths.values():
            code, document = server.call("GET", entry["serverRelativeURL"])
            assert code == 200
            for schema in document.get("components", {}).get("schemas", {}).values():
                for name in schema.get("x-kubernetes-group-version-kind", ()):
                    self._kinds[name["group"], name["version"], name["kind"]] = (document, schema)

    def make(self, dice: random.Random, group: str, version: str, kind: str, name: str) -> dict:
        document, schema = self._kinds.get((group, version, kind), ({}, {}))
        made = self._value(dice, document, schema, 0) if schema else {"spec": {}}
        obj = made if isinstance(made, dict) else {}
        obj |= {"apiVersion": f"{group}/{version}".lstrip("/"), "kind": kind}
        meta = obj.get("metadata") if isinstance(obj.get("metadata"), dict) and dice.random() < 0.1 else {}
        obj["metadata"] = {**meta, "name": name, "labels": {"fuzz": "yes"}}
        return obj

    def _value(self, dice: random.Random, document: dict, schema: dict, depth: int) -> Any:
        if dice.random() < 0.02:
            return copy.deepcopy(dice.choice(ODD))
        if "$ref" in schema:
            schema = document["components"]["schemas"].get(schema["$ref"].rpartition("/")[2], {})
        for part in ("allOf", "oneOf", "anyOf"):
            if schema.get(part):
                return self._value(dice, document, dice.choice(schema[part]), depth)
        if "enum" in schema:
            return dice.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "object" or "properties" in schema:
            if depth > 7:
                return {}
            required = schema.get("required", ())
            chosen = [name for name in schema.get("properties", {}) if name in required or dice.random() < 0.35]
            made = {name: self._value(dice, document, schema["properties"][name], depth + 1) for name in chosen}
            if isinstance(schema.get("additionalProperties"), dict) and dice.random() < 0.7:
                made[dice.choice(("a", "cpu", "b.c/d", ""))] = self._value(
                    dice, document, schema["additionalProperties"], depth + 1
                )
            return made
        if kind == "array":
            items = schema.get("items", {})
            return [self._value(dice, document, items, depth + 1) for _ in range(dice.choice((0, 1, 1, 2)))]
        if kind == "integer":
            return dice.choice((0, 1, 2, 80, -1, 65536, 2**40))
        if kind == "number":
            return dice.choice((0, 1.5, -1))
        if kind == "boolean":
            return dice.random() < 0.5
        if schema.get("format") == "byte":
            return dice.choice(("eA==", "x", ""))
        if schema.get("format") in ("date-time", "micro-time"):
            return dice.choice(("2020-01-01T00:00:00Z", "x", "2020-01-01T00:00:00.000000Z"))
        if kind == "string" or schema.get("x-kubernetes-int-or-string"):
            return dice.choice(TEXTS)
        return copy.deepcopy(dice.choice(ODD))


class Fuzzer:
    """Makes requests. ``resources`` are those of discovery."""

    def __init__(self, server: Server, schemas: Schemas) -> None:
        self.schemas = schemas
        self.resources: list[tuple[str, str, dict]] = []
        groups = [("", "v1")]
        for group in server.call("GET", "/apis")[1]["groups"]:
            groups += [(group["name"], version["version"]) for version in group["versions"]]
        for group, version in groups:
            base = f"/apis/{group}/{version}" if group else f"/api/{version}"
            for resource in server.call("GET", base)[1]["resources"]:
                self.resources.append((group, version, resource))

    def request(self, dice: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
        """Return method, path, body and headers."""
        found = self.resources if dice.random() < 0.8 else [one for one in self.resources if one[0] == "example.io"]
        group, version, resource = dice.choice(found)
        plural, _, subresource = resource["name"].partition("/")
        namespace = dice.choice(NAMESPACES)
        name = f"f{dice.randrange(6)}"
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        if resource["namespaced"]:
            path += f"/namespaces/{namespace}"
        path += f"/{plural}"
        verbs = [METHODS[verb] for verb in resource["verbs"] if verb in METHODS]
        method = dice.choice(verbs) if verbs and dice.random() < 0.95 else dice.choice(tuple(METHODS.values()))
        if method == "DELETE" and dice.random() < 0.7:
            method = "PATCH"
        if subresource:
            path += f"/{name}/{subresource}"
        elif method in ("PUT", "PATCH") or (method != "POST" and dice.random() < 0.6):
            path += f"/{name}"
        made = resource.get("group", group), resource.get("version", version), resource["kind"]
        obj = self.schemas.make(dice, *made, name)
        headers = {"Accept": dice.choice(ACCEPT) if dice.random() < 0.2 else "application/json"}
        parameters = {}
        for _ in range(dice.choice((0, 0, 1, 2))):
            key = dice.choice(list(PARAMETERS))
            parameters[key] = dice.choice(PARAMETERS[key])
        if plural in DRY:
            parameters["dryRun"] = "All"
        if method == "PATCH":
            kind = dice.choice(CONTENT[2:6])
            if kind == CONTENT[2]:
                body = json_patch(dice, obj)
            else:
                body = bend(dice, obj) if dice.random() < 0.6 else obj
                if kind == CONTENT[5]:
                    parameters["fieldManager"] = dice.choice(("m1", "m2"))
        else:
            kind = "application/json"
            body = bend(dice, obj) if dice.random() < 0.6 else obj
        raw = json.dumps(body).encode()
        if method in ("GET", "DELETE") and dice.random() < 0.8:
            raw = b""
        if dice.random() < 0.05:
            raw = dice.choice(RAW)
        if dice.random() < 0.05:
            kind = dice.choice(CONTENT)
        if dice.random() < 0.05 and plural not in DRY:
            path = self._bent_path(dice, path)
        if method == "GET" and dice.random() < 0.01:
            parameters |= {"watch": "1", "timeoutSeconds": "1"}
        if raw:
            headers["Content-Type"] = kind
        if "/namespaces" in path and method == "DELETE" and path.rstrip("/").count("/") <= 4:
            method = "GET"
        query = "&".join(f"{key}={quote(value)}" for key, value in parameters.items())
        return method, f"{path}?{query}" if query else path, raw, headers

    def _bent_path(self, dice: random.Random, path: str) -> str:
        parts = path.split("/")
        where = dice.randrange(1, len(parts))
        parts[where] = dice.choice(PARTS)
        if dice.random() < 0.3:
            parts += dice.choice((["status"], ["x", "y"], [""], ["proxy", "http:", "x"]))
        return quote("/".join(parts), safe="/%{}*~")


def test_no_request_breaks_the_server(stopped: Server) -> None:
    server = stopped
    server.start("--history-seconds", "5")
    assert server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)[0] == 201
    assert server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "fuzz"}})[0] == 201
    server.call("POST", WIDGET_PATH, widget("f0"))
    fuzzer, storm = Fuzzer(server, Schemas(server)), Storm(server)

    def make(dice: random.Random, client: Client) -> None:
        client.send(*fuzzer.request(dice))

    storm.blow(make, REQUESTS)
    assert storm.codes[200] + storm.codes[201] > REQUESTS / 20, "hardly anything got through: the fuzzer is too odd"


@pytest.mark.filterwarnings("ignore")
def test_operations_of_the_published_schemas(server: Server) -> None:
    """Requests that schemathesis makes from the OpenAPI v3 documents."""
    dice = random.Random(SEED)
    operations = []
    for entry in server.call("GET", "/openapi/v3")[1]["paths"].values():
        document = server.call("GET", entry["serverRelativeURL"])[1]
        found = schemathesis.openapi.from_dict(document).get_all_operations()
        operations += [one.ok() for one in found if "/watch/" not in one.ok().path]
    assert len(operations) > 100
    answers = 0
    for operation in dice.sample(operations, min(len(operations), max(12, REQUESTS // 400))):

        def send(case: Any) -> None:
            nonlocal answers
            # Nothing is changed by what comes of all operations, on a server that other tests use.
            query = urlencode({**(case.query or {}), "dryRun": "All"}, doseq=True)
            path = quote(case.formatted_path, safe="/%:")
            body = json.dumps(case.body).encode() if isinstance(case.body, dict | list | str | int) else None
            code, headers, raw = server.raw(
                case.method, f"{path}?{query}", body, case.media_type or "application/json", timeout=PATIENCE
            )
            answers += 1
            wrong = judge(code, raw, headers)
            assert not wrong, f"{wrong}: {code} {raw[:300]!r}\n  {case.method} {path}?{query} {(body or b'')[:2000]!r}"

        quiet = settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        seed(SEED)(quiet(given(case=operation.as_strategy())(send)))()
    print(f"\nseed {SEED}: {answers} answers to requests made by schemathesis")
    assert answers > 20
