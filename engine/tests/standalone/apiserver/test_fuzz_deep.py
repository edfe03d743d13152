# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd requests that get further than those of test_fuzz.py: they begin with what is right.

Objects that are there are bent a little and written back in every way, their subresources and owners of fields too;
definitions with odd schemas and rules are made and used; watches are begun and left; documents are asked for in every
form; bodies are huge and deep; and what is sent isn't always HTTP.
"""

import contextlib
import copy
import json
import random
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yaml

from .conftest import WIDGETS, Server
from .fuzzing import CONTENT, ODD, PATIENCE, REQUESTS, Client, Storm, bend, json_patch
from .http.test_protection import connect, request_head

JSON_PATCH, MERGE, STRATEGIC, APPLY = CONTENT[2:6]
NAMESPACE = "/api/v1/namespaces/default"
NEW_EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
META = {"labels": {"app": "fuzz"}, "annotations": {"a": "b"}}
#: A resource's path, and an object of it that is as it should be.
#: Objects that are as they should be, by the path of their resource.
RIGHT: dict[str, dict]
REVIEWS: dict[str, dict]
RULES: list[str]
RIGHT, REVIEWS, RULES = yaml.safe_load((Path(__file__).parent / "fuzz_objects.yml").read_text()).values()
RIGHT["/apis/apiextensions.k8s.io/v1/customresourcedefinitions"] = {"spec": WIDGETS["spec"]}
#: What changes how the server treats others' requests is written in dry runs only.
DRY = ("limitranges", "resourcequotas", "webhookconfigurations", "customresourcedefinitions", "apiservices")
#: What is asked once and not stored.
SUBRESOURCES: tuple[tuple[str, str, dict], ...] = (
    ("pods", "binding", {"target": {"kind": "Node", "name": "fuzz"}, "metadata": {"annotations": {"a": "b"}}}),
    ("pods", "eviction", {"metadata": {"name": "fuzz"}, "deleteOptions": {"gracePeriodSeconds": 0, "dryRun": ["All"]}}),
    (
        "serviceaccounts",
        "token",
        {
            "spec": {
                "audiences": ["a"],
                "expirationSeconds": 600,
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "fuzz"},
            }
        },
    ),
    ("widgets", "scale", {"metadata": {"name": "fuzz"}, "spec": {"replicas": 3}}),
)
CONNECTIONS = (
    "exec?command=a&stdout=1",
    "attach?stdout=1",
    "portforward?ports=80",
    "log?follow=1&tailLines=1",
    "exec",
    "log?container=i&previous=true",
    "log?sinceTime=x",
    "portforward",
    "proxy/a",
)
UPGRADES: tuple[dict[str, str], ...] = (
    {"Upgrade": "websocket", "Connection": "Upgrade"},
    {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"},
    {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
    },
    {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "99",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "SPDY/3.1+portforward.k8s.io",
    },
    {"Upgrade": "SPDY/3.1", "Connection": "Upgrade", "X-Stream-Protocol-Version": "v4.channel.k8s.io"},
    {"Upgrade": "SPDY/3.1", "Connection": "Upgrade"},
    {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"},
    {"Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io.%%%", "Upgrade": "websocket"},
)


def kind_of(server: Server, path: str) -> dict:
    """Return what an object of a resource says of its kind."""
    *parts, plural = path.replace("/namespaces/default", "").split("/")
    found = server.call("GET", "/".join(parts))[1]["resources"]
    group_version = "/".join(parts[2:])
    return {"apiVersion": group_version, "kind": next(one["kind"] for one in found if one["name"] == plural)}


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    """A server with one object of every kind, named fuzz."""
    server = Server(tmp_path_factory.mktemp("fuzz")).start("--history-seconds", "5")
    try:
        assert server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)[0] == 201
        server.until(lambda: server.call("GET", "/apis/example.io/v1/namespaces/default/widgets")[0] == 200)
        for path, right in RIGHT.items():
            name = "widgets.example.io" if path.endswith("definitions") else "fuzz"
            name = {"/apis/apiregistration.k8s.io/v1/apiservices": "v1.a.b", NEW_EVENTS: "newer"}.get(path, name)
            right |= {**kind_of(server, path), "metadata": {**copy.deepcopy(META), "name": name}}
            dry = "?dryRun=All" if path.endswith(DRY) else ""
            code, answer = server.call("POST", path + dry, right)
            assert code == 201 or path.endswith("definitions"), (path, answer)
        yield Storm(server)
    finally:
        code = server.stop()
    assert code == 0


def written(dice: random.Random, client: Client, path: str, right: dict) -> None:
    """Write an object, bent, in some way."""
    dry = path.endswith(DRY)
    query: dict[str, str] = {"dryRun": "All"} if dry or dice.random() < 0.2 else {}
    if dice.random() < 0.2:
        query["fieldValidation"] = dice.choice(("Strict", "Warn"))
    where = f"{path}/{right['metadata']['name']}"
    found = None if dry else client.send("GET", where)[1]
    if found is None or found.get("kind") == "Status":
        found = copy.deepcopy(right)
        if not dry:
            # It was deleted.
            client.send("POST", path, right)
    if dice.random() < 0.7:
        found["metadata"].pop("managedFields", None)
    way = dice.choice(("PUT", "PUT", "POST", MERGE, STRATEGIC, APPLY, APPLY, JSON_PATCH, "DELETE"))
    subresource = dice.choice(("", "", "", "/status"))
    body: Any = json_patch(dice, found) if way == JSON_PATCH else bend(dice, found)
    headers = (
        {"User-Agent": dice.choice(("", "a/b", "kubectl/v1.32 (x)", "é", "/" * 300))} if dice.random() < 0.1 else {}
    )
    if way == "POST":
        client.send("POST", f"{path}?{urlencode(query)}", body, headers)
    elif way == "DELETE":
        options = bend(
            dice,
            {
                "propagationPolicy": "Background",
                "gracePeriodSeconds": 0,
                "kind": "DeleteOptions",
                "preconditions": {"uid": "a", "resourceVersion": "1"},
                "apiVersion": "v1",
            },
        )
        client.send("DELETE", f"{where}?{urlencode(query)}", options, headers)
    elif way == "PUT":
        client.send("PUT", f"{where}{subresource}?{urlencode(query)}", body, headers)
    else:
        if way == APPLY:
            query |= {"fieldManager": dice.choice(("one", "two")), "force": dice.choice(("true", "false"))}
            if isinstance(body, dict) and isinstance(body.get("metadata"), dict) and dice.random() < 0.8:
                for name in ("managedFields", "resourceVersion", "uid"):
                    body["metadata"].pop(name, None)
        client.send("PATCH", f"{where}{subresource}?{urlencode(query)}", body, {**headers, "Content-Type": way})


def test_objects_bent_a_little(storm: Storm) -> None:
    def make(dice: random.Random, client: Client) -> None:
        action = dice.random()
        if action < 0.8:
            written(dice, client, *dice.choice(list(RIGHT.items())))
        elif action < 0.87:
            path, review = dice.choice(list(REVIEWS.items()))
            body = {**copy.deepcopy(review), "kind": None, "apiVersion": None} if dice.random() < 0.1 else review
            client.send("POST", path, bend(dice, copy.deepcopy(body)))
        elif action < 0.95:
            plural, subresource, body = dice.choice(SUBRESOURCES)
            path = next(one for one in RIGHT if one.endswith(plural)) + f"/fuzz/{subresource}"
            way = dice.choice(("POST", "PUT", MERGE, JSON_PATCH, "GET") if subresource == "scale" else ("POST",))
            if way in (MERGE, JSON_PATCH):
                changed = bend(dice, copy.deepcopy(body)) if way == MERGE else json_patch(dice, body)
                client.send("PATCH", path, changed, {"Content-Type": way})
            else:
                client.send(way, path, b"" if way == "GET" else bend(dice, copy.deepcopy(body)))
        else:
            headers = dice.choice((*UPGRADES, {}))
            where = f"{NAMESPACE}/pods/fuzz/{dice.choice(CONNECTIONS)}"
            client.send(dice.choice(("GET", "POST")), where, b"", headers)
            if "Upgrade" in headers:
                client.close()

    storm.blow(make, REQUESTS // 2)
    assert storm.codes[200] + storm.codes[201] > REQUESTS / 12, f"hardly anything got through: {storm.codes}"


def field_set(dice: random.Random, depth: int = 0) -> Any:
    """Return a fieldsV1, or almost one."""
    if depth > 3 or dice.random() < 0.2:
        return {} if dice.random() < 0.8 else copy.deepcopy(dice.choice(ODD))
    keys = (
        "f:metadata",
        "f:spec",
        "f:labels",
        "f:app",
        "f:data",
        "f:a",
        "f:containers",
        "f:parts",
        "f:ports",
        ".",
        "f:",
        'k:{"name":"c"}',
        'k:{"name":"a"}',
        'k:{"port":80,"protocol":"TCP"}',
        "k:{}",
        "k:[]",
        'k:{"name":',
        "k:null",
        'k:{"name":{"a":1}}',
        'v:"a"',
        "v:1",
        "v:{",
        "v:null",
        "i:0",
        "i:-1",
        "i:x",
        "i:99999999999999999999",
        "",
        "x",
        "f:é",
        "f:" + "x" * 300,
        "f:\ud7ff",
        "f:a.b/c",
        "f",
    )
    return {dice.choice(keys): field_set(dice, depth + 1) for _ in range(dice.choice((1, 1, 2, 3)))}


def test_odd_owners_of_fields(storm: Storm) -> None:
    owned = [one for one in RIGHT.items() if not one[0].endswith(DRY)]

    def make(dice: random.Random, client: Client) -> None:
        path, right = dice.choice(owned)
        where = f"{path}/{right['metadata']['name']}"
        code, found = client.send("GET", where)
        if code != 200:
            client.send("POST", path, right)
            found = copy.deepcopy(right)
        meta = found["metadata"]
        entries = meta.get("managedFields") or []
        if dice.random() < 0.6:
            entries = bend(dice, entries)
        else:
            entries = [
                {
                    "manager": dice.choice(("one", "two", "", "x" * 129)),
                    "operation": dice.choice(("Apply", "Update", "x")),
                    "apiVersion": dice.choice((found["apiVersion"], "v9", "", "a/b/c")),
                    "time": "2020-01-01T00:00:00Z",
                    "fieldsType": dice.choice(("FieldsV1", "FieldsV1", "x")),
                    "fieldsV1": field_set(dice),
                    **({"subresource": dice.choice(("status", "x"))} if dice.random() < 0.2 else {}),
                }
                for _ in range(dice.choice((1, 2, 3)))
            ]
        meta["managedFields"] = entries
        way = dice.choice(("PUT", "PUT", MERGE))
        if way == "PUT":
            client.send("PUT", where, found)
        else:
            client.send("PATCH", where, {"metadata": {"managedFields": entries}}, {"Content-Type": MERGE})
        # Whatever was stored is worked with.
        applied = {**copy.deepcopy(right), "metadata": {"name": right["metadata"]["name"]}}
        if dice.random() < 0.5:
            applied = bend(dice, applied)
        query = f"fieldManager={dice.choice(('one', 'two'))}&force={dice.choice(('true', 'false'))}"
        client.send("PATCH", f"{where}?{query}", applied, {"Content-Type": APPLY})
        labels = {"metadata": {"labels": {"n": str(dice.randrange(100))}}}
        client.send("PATCH", where, labels, {"Content-Type": MERGE})

    storm.blow(make, REQUESTS // 4)


#: Rules of definitions that are laborious for whoever reads them.
LONG_RULES = ("'" + "a" * 5000 + "' == self", "true || " * 300 + "true", "(" * 200 + "true" + ")" * 200)
SCALAR_FORMATS = (
    "date-time",
    "date",
    "byte",
    "int32",
    "int64",
    "double",
    "uuid",
    "ipv4",
    "email",
    "x",
    "duration",
    "uri",
)


def schema(dice: random.Random, depth: int = 0) -> dict:
    """Return a schema of a definition, mostly one that can be."""
    kind = dice.choice(
        ("object", "object", "array", "string", "integer", "number", "boolean") if depth < 3 else ("string", "integer")
    )
    made: dict[str, Any] = {"type": kind}
    if kind == "object" and dice.random() < 0.7:
        made["properties"] = {
            name: schema(dice, depth + 1) for name in dice.sample(("a", "b", "x-y", "name", "namespace", "in", "É"), 3)
        }
        if dice.random() < 0.2:
            made["required"] = ["a"]
    elif kind == "object" and dice.random() < 0.5:
        made["additionalProperties"] = schema(dice, depth + 1) if dice.random() < 0.8 else True
    elif kind == "object":
        made["x-kubernetes-preserve-unknown-fields"] = True
        if dice.random() < 0.3:
            made["x-kubernetes-embedded-resource"] = True
    elif kind == "array":
        made["items"] = schema(dice, depth + 1)
        if dice.random() < 0.3:
            made["x-kubernetes-list-type"] = dice.choice(("set", "atomic", "map"))
        if made.get("x-kubernetes-list-type") == "map":
            made["items"] = {
                "type": "object",
                "properties": {"name": {"type": "string", "default": "a"}, "a": schema(dice, 3)},
                "required": ["name"],
            }
            made["x-kubernetes-list-map-keys"] = ["name"]
    elif dice.random() < 0.3:
        made["format"] = dice.choice(SCALAR_FORMATS)
    elif kind == "string" and dice.random() < 0.3:
        made["pattern"] = dice.choice(("^a+$", "(a+)+$", "[", "\\p{Greek}", "(?<=a)b", "^.{1,1000}$"))
    if kind in ("integer", "number") and dice.random() < 0.3:
        made |= {"minimum": dice.choice((0, 1.5, -1)), "multipleOf": dice.choice((1, 0.1, 3))}
    if dice.random() < 0.3:
        made[
            "maxLength"
            if kind == "string"
            else "maxItems"
            if kind == "array"
            else "maxProperties"
            if kind == "object"
            else "maximum"
        ] = dice.choice((1, 100))
    if dice.random() < 0.1:
        made["default"] = value(dice, made)
    if dice.random() < 0.1:
        made["enum"] = [value(dice, made), value(dice, made)]
    if dice.random() < 0.1:
        made["nullable"] = True
    if dice.random() < 0.1:
        made[dice.choice(("anyOf", "oneOf", "allOf"))] = [{"required": ["a"]}, {"minLength": 1}]
    if dice.random() < 0.2:
        rule = {"rule": dice.choice((*RULES, *LONG_RULES))}
        if dice.random() < 0.3:
            rule |= {
                "message": dice.choice(("m", "", "x" * 3000)),
                "messageExpression": dice.choice(("'a' + string(self)", "self", "1", "(")),
                "reason": dice.choice(("FieldValueInvalid", "x")),
                "fieldPath": dice.choice((".a", ".b.c", "['x-y']", "x")),
                "optionalOldSelf": dice.random() < 0.5,
            }
        made["x-kubernetes-validations"] = [rule]
    return made


def value(dice: random.Random, of: dict) -> Any:
    """Return a value of a schema, mostly."""
    if dice.random() < 0.05:
        return copy.deepcopy(dice.choice(ODD))
    kind = of.get("type")
    if kind == "object":
        made = {name: value(dice, inner) for name, inner in (of.get("properties") or {}).items() if dice.random() < 0.8}
        if isinstance(of.get("additionalProperties"), dict):
            made |= {name: value(dice, of["additionalProperties"]) for name in ("k", "é.b/c")}
        if of.get("x-kubernetes-embedded-resource"):
            made |= {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": dice.choice(("a", "É"))}}
        return made
    if kind == "array":
        return [value(dice, of.get("items") or {}) for _ in range(dice.choice((0, 1, 2, 40)))]
    return dice.choice(
        {
            "string": (
                "a",
                "b",
                "",
                "10Gi",
                "2020-01-01T00:00:00Z",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
                "10.0.0.1",
                "https://a/b",
            ),
            "integer": (0, 1, -1, 2**31, 2**62),
            "number": (0, 0.1, 1e300, -5),
            "boolean": (True, False),
        }.get(str(kind), (1, "a", None))
    )


def test_odd_definitions(storm: Storm) -> None:
    """Definitions that come, are used, change and go."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

    def make(dice: random.Random, client: Client) -> None:
        group = f"g{uuid.UUID(int=dice.getrandbits(128)).hex[:12]}.example.io"
        of = {"type": "object", "properties": {"spec": schema(dice), "status": schema(dice)}}
        versions = []
        for name in dice.choice((("v1",), ("v1", "v2beta1"))):
            version: dict[str, Any] = {
                "name": name,
                "served": True,
                "storage": name == "v1",
                "schema": {"openAPIV3Schema": of},
            }
            if dice.random() < 0.5:
                version["subresources"] = {
                    "status": {},
                    "scale": {
                        "specReplicasPath": dice.choice((".spec.a", ".spec.replicas", ".spec['x-y']")),
                        "statusReplicasPath": ".status.b",
                        "labelSelectorPath": dice.choice((".status.a", ".spec")),
                    },
                }
            if dice.random() < 0.5:
                version["additionalPrinterColumns"] = [
                    {
                        "name": "C",
                        "type": dice.choice(("string", "integer", "date", "number", "boolean")),
                        "jsonPath": path,
                    }
                    for path in dice.sample(
                        (
                            ".spec.a",
                            ".spec.b[*].name",
                            ".metadata.creationTimestamp",
                            ".spec['x-y']",
                            '.spec.a[?(@.name=="a")].b',
                            ".spec.a[-1:]",
                            "..",
                            ".spec.a[",
                            ".spec.b[0:2:0]",
                            ".*",
                        ),
                        3,
                    )
                ]
            if dice.random() < 0.3:
                version["selectableFields"] = [{"jsonPath": dice.choice((".spec.a", ".spec.b", ".metadata.name", "x"))}]
            versions.append(version)
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"things.{group}"},
            "spec": {
                "group": group,
                "scope": dice.choice(("Cluster", "Namespaced")),
                "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
                "versions": versions,
            },
        }
        if dice.random() < 0.1:
            definition["spec"]["conversion"] = {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "https://127.0.0.1:1/"}, "conversionReviewVersions": ["v1"]},
            }
        code, _ = client.send(
            "POST", definitions, bend(dice, copy.deepcopy(definition)) if dice.random() < 0.3 else definition
        )
        if code != 201:
            return
        where = (
            f"/apis/{group}/v1"
            + ("/namespaces/default" if definition["spec"]["scope"] == "Namespaced" else "")
            + "/things"
        )
        for _ in range(50):
            if client.send("GET", where)[0] != 404:
                break
            time.sleep(0.02)
        for number in range(6):
            obj = {
                "apiVersion": f"{group}/v1",
                "kind": "Thing",
                "metadata": {"name": f"n{number}"},
                "spec": value(dice, of["properties"]["spec"]),
                "status": value(dice, of["properties"]["status"]),
            }
            client.send("POST", where, obj)
            obj["spec"] = value(dice, of["properties"]["spec"])
            query = "?fieldManager=one&force=true"
            client.send("PATCH", f"{where}/n{number}{query}", obj, {"Content-Type": APPLY})
            client.send("PATCH", f"{where}/n{number}/status", {"status": obj["status"]}, {"Content-Type": MERGE})
            client.send("PATCH", f"{where}/n{number}/scale", {"spec": {"replicas": 3}}, {"Content-Type": MERGE})
        client.send("GET", where, b"", {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
        client.send("GET", f"{where}?fieldSelector=spec.a%3Da&limit=2")
        client.send("GET", where.replace("/v1", "/v2beta1", 1))
        client.send("GET", f"/openapi/v3/apis/{group}/v1")
        client.send("PATCH", f"{definitions}/things.{group}", bend(dice, definition), {"Content-Type": MERGE})
        client.send("GET", f"{where}/n0")
        client.send("DELETE", f"{definitions}/things.{group}")

    storm.blow(make, REQUESTS // 4)
    assert storm.codes[201] > REQUESTS / 200, f"hardly a definition got through: {storm.codes}"
    left = storm.server.until(lambda: len(storm.server.call("GET", definitions)[1]["items"]) == 1, PATIENCE)
    assert left, "definitions without objects stay behind"


def test_watches_begun_and_left(storm: Storm) -> None:
    paths = [*RIGHT, "/api/v1/pods", "/api/v1/namespaces", "/apis/example.io/v1/widgets"]
    values = {
        "watch": ("1", "true", "0", "", "x"),
        "resourceVersion": ("", "0", "1", "-1", "x", "now", "99999999999999999999"),
        "resourceVersionMatch": ("NotOlderThan", "Exact", "x"),
        "allowWatchBookmarks": ("true", "x"),
        "sendInitialEvents": ("true", "false", "x"),
        "timeoutSeconds": ("0", "1", "-1", "x", "1e9", "9" * 30),
        "labelSelector": ("app=fuzz", "app!=fuzz", "(", "a in (b)"),
        "limit": ("1", "x"),
        "continue": ("x", "e30"),
        "fieldSelector": ("metadata.name=fuzz", "metadata.name!=fuzz", "spec.nodeName=", "a=b", "status.phase=Pending"),
        "includeObject": ("Object", "None", "x"),
        "pretty": ("true",),
    }
    accepted = (
        "application/json",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/yaml",
        "x",
        "*/*",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/json;stream=watch",
    )
    server = storm.server

    def make(dice: random.Random, client: Client) -> None:
        query = {"watch": "1"} | {
            name: dice.choice(values[name]) for name in dice.sample(list(values), dice.randrange(5))
        }
        if query.get("resourceVersion") == "now":
            query["resourceVersion"] = server.call("GET", "/api/v1/namespaces")[1]["metadata"]["resourceVersion"]
        headers = [
            f"Accept: {dice.choice(accepted)}",
            *(dice.choice(((), (), ("Upgrade: websocket", "Connection: Upgrade")))),
        ]
        path = f"{dice.choice(paths)}?{urlencode(query)}"
        connection = connect(server)
        client.last, client.sent = f"{path} {headers}", client.sent + 1
        connection.sendall(request_head(server, "GET", path, *headers))
        head = connection.recv(65536)
        if dice.random() < 0.3:
            client.send(
                "PATCH",
                f"{NAMESPACE}/configmaps/fuzz",
                {"metadata": {"labels": {"n": str(dice.random())}}},
                {"Content-Type": MERGE},
            )
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                head += connection.recv(65536)
        code = int(head.split(b" ", 2)[1])
        storm.codes[code] += 1
        if code >= 500 and code != 504:
            storm.problems.append(f"{head[:1000]!r}: {client.last}")
        connection.close()

    storm.blow(make, REQUESTS // 20)

    def gone() -> bool:
        text = server.raw("GET", "/metrics", timeout=PATIENCE)[2]
        return b"apiserver_longrunning_requests 0\n" in text

    # Those who left without a word are noticed when something happens, or by looking.
    server.call("PATCH", f"{NAMESPACE}/configmaps/fuzz", {"data": {"over": "yes"}}, MERGE)
    server.until(gone, 90)


def test_documents_in_every_form(storm: Storm) -> None:
    groups = [
        ("", "v1"),
        *(
            (one["name"], version["version"])
            for one in storm.server.call("GET", "/apis")[1]["groups"]
            for version in one["versions"]
        ),
    ]
    paths = [
        "/",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/version",
        "/version/",
        "/metrics",
        "/healthz",
        "/livez/ping",
        "/readyz?verbose",
        "/readyz/x",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi",
        "/openapi/v3/x",
        "/openapi/v3/apis",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
        "/favicon.ico",
        "/swagger.json",
        "//api",
        "/api//v1",
        "/apis/%2e%2e/v1",
        "/api/v1/%2e%2e",
        "*",
        "/api/v1/namespaces/default",
        "/logs",
        "/debug/pprof",
    ]
    paths += [f"/apis/{group}" for group, _ in groups if group] + [
        f"/apis/{group}/{version}" for group, version in groups if group
    ]
    paths += [f"/openapi/v3/apis/{group}/{version}" for group, version in groups if group] + ["/openapi/v3/api/v1"]
    media = (
        "application/json",
        "application/yaml",
        "*/*",
        "application/*",
        "text/plain",
        "application/vnd.kubernetes.protobuf",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        "application/json;profile=nested",
        "application/openmetrics-text",
        "x",
        "",
        "/",
        "é",
    )
    parameters = (
        "g=apidiscovery.k8s.io",
        "v=v2",
        "v=v2beta1",
        "v=v9",
        "as=APIGroupDiscoveryList",
        "as=Table",
        "as=",
        "q=0",
        "q=1.5",
        "q=nan",
        "q=-1",
        "q=inf",
        ";",
        "=",
        "g=meta.k8s.io",
        "v=v1",
        "charset=utf-16",
        '"',
    )

    def make(dice: random.Random, client: Client) -> None:
        accept = ",".join(
            ";".join([dice.choice(media), *dice.sample(parameters, dice.randrange(4))])
            for _ in range(dice.choice((1, 1, 2, 5)))
        )
        headers = {"Accept": accept.encode("latin-1", "replace").decode("latin-1")}
        for name, texts in (
            ("If-None-Match", ('"x"', "*", "W/", "x")),
            ("Accept-Encoding", ("gzip", "br", "gzip;q=0", "x", "identity")),
            ("Range", ("bytes=0-1", "x")),
            ("If-Modified-Since", ("x", "Mon, 01 Jan 2020 00:00:00 GMT")),
            ("X-Forwarded-For", ("x",)),
            ("Origin", ("https://x",)),
            ("Impersonate-User", ("a", "", "é")),
            ("Impersonate-Group", ("system:masters",)),
            ("Impersonate-Extra-A%2fB", ("x",)),
            ("X-Remote-User", ("admin",)),
            ("Cookie", ("a=b; c", "=" * 3000)),
        ):
            if dice.random() < 0.1:
                headers[name] = dice.choice(texts)
        method = dice.choice(("GET",) * 8 + ("HEAD", "OPTIONS", "POST", "DELETE", "TRACE", "PROPFIND", "get"))
        path = dice.choice(paths)
        if dice.random() < 0.1:
            path += quote(str(dice.choice(ODD)))[:200]
        if dice.random() < 0.2:
            odd = dice.choice(("hash=x", "hash=", "timeout=x", "pretty=1", "a=%ff", "&&=", "exclude=ping"))
            path += f"{'&' if '?' in path else '?'}{odd}"
        client.send(method, path, b"", headers)
        if method == "HEAD":
            client.close()

    storm.blow(make, REQUESTS // 4)


def huge(dice: random.Random) -> tuple[bytes, str]:
    """Return a large, deep or otherwise laborious document, and what it is said to be."""
    depth = dice.choice((50, 200, 990, 1100, 3000, 20_000, 200_000))
    count = dice.choice((1000, 20_000, 100_000))
    objects = (
        lambda: b'{"a":' * depth + b"1" + b"}" * depth,
        lambda: b"[" * depth + b"]" * depth,
        lambda: json.dumps({f"k{number}": number for number in range(count)}).encode(),
        lambda: json.dumps(list(range(count))).encode(),
        lambda: b'"' + b"x" * (count * 10) + b'"',
        lambda: b'{"a":"' + b"\\u0000" * count + b'"}',
        lambda: b"9" * count,
        lambda: b"-0." + b"1" * count + b"e5",
        lambda: b'{"x":1,"x":' * min(depth, 900) + b"1" + b"}" * min(depth, 900),
        lambda: b" " * count,
        lambda: b"1e" + b"9" * 50,
    )
    texts = (
        lambda: b"- " * depth + b"a",
        lambda: b"{a: " * depth + b"1" + b"}" * depth,
        lambda: "\n".join(f"{' ' * number}a:" for number in range(min(depth, 1500))).encode(),
        lambda: b"\n".join([b"a0: &a0 [x]", *(b"a%d: &a%d [*a%d, *a%d]" % (n, n, n - 1, n - 1) for n in range(1, 30))]),
        lambda: b"a: &a [*a]",
        lambda: b"? " * depth,
        lambda: b"a: |\n" + b"  x\n" * count,
        lambda: b"--- \n" * min(count, 5000),
        lambda: b"!!binary " + b"eA==" * count,
        lambda: b"!!timestamp 9999-99-99",
        lambda: b"<<: [*x]",
        lambda: b"&x " * 2000,
        lambda: "\ufeffa: b".encode("utf-16"),
        lambda: b"%YAML 9.9\n---\na",
        lambda: b"a: !!int 0o9",
        lambda: b"a: 0x" + b"f" * 9999,
        lambda: b"a: 190:20:30.15\nb: 1_000\nc: .inf\nd: ~\ne: yes\n=: x",
        lambda: b"a: '" + b"\\" * count,
        lambda: b"#" * count,
        lambda: b"\t- a",
        lambda: b"a: \x85\xc2\x85\xe2\x80\xa8b",
        lambda: b"!!set {a, b}",
        lambda: b"!!omap [a: 1]",
    )
    if dice.random() < 0.5:
        return dice.choice(objects)(), dice.choice(("json", "json", "yaml"))
    return dice.choice(texts)(), "yaml"


def test_huge_and_deep_bodies(storm: Storm) -> None:
    def make(dice: random.Random, client: Client) -> None:
        inner, form = huge(dice)
        path, right = dice.choice([one for one in RIGHT.items() if not one[0].endswith(DRY)])
        where = f"{path}/{right['metadata']['name']}"
        if form == "json" and dice.random() < 0.8:
            obj = {
                **{name: right[name] for name in ("apiVersion", "kind")},
                "metadata": {"name": right["metadata"]["name"]},
            }
            place = dice.choice(("status", "spec", "data", "metadata"))
            if place == "metadata":
                raw = (
                    json.dumps({**obj, "metadata": {"name": "fuzz", "annotations": "@"}})
                    .encode()
                    .replace(b'"@"', inner)
                )
            else:
                raw = json.dumps({**obj, place: "@"}).encode().replace(b'"@"', inner)
        else:
            raw = inner
        headers = {"Content-Type": f"application/{form}"}
        way = dice.choice(("POST", "PUT", MERGE, STRATEGIC, APPLY, JSON_PATCH))
        if way == JSON_PATCH:
            many = dice.choice((10, 1000, 9999, 11_000))
            raw = json.dumps(
                [
                    {
                        "op": dice.choice(("add", "test", "copy")),
                        "path": "/metadata/labels/" + dice.choice(("n", "x/" * 2000)),
                        "from": "/metadata",
                        "value": "1",
                    }
                ]
                * many
            ).encode()
        if way in ("POST", "PUT"):
            client.send(way, path if way == "POST" else where, raw, headers)
        else:
            query = "?fieldManager=deep&force=true" if way == APPLY else ""
            client.send("PATCH", where + query, raw, {"Content-Type": way})

    storm.blow(make, REQUESTS // 20)


LINES = (
    b"GET /api HTTP/1.1",
    b"GET /api HTTP/1.0",
    b"GET /api HTTP/2.0",
    b"get /api http/1.1",
    b"GET  /api  HTTP/1.1",
    b"GET /api",
    b"POST /api/v1/namespaces HTTP/1.1",
    b"CONNECT localhost:1 HTTP/1.1",
    b"GET https://localhost/api HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"PRI * HTTP/2.0\r\n\r\nSM",
    b"\x16\x03\x01\x00",
    b"",
    b"\x00",
    b"GET /\xff HTTP/1.1",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1",
    b"PATCH /api/v1/namespaces/default HTTP/1.1",
    b"GET /api?" + b"&" * 5000 + b" HTTP/1.1",
    b"GET //[::1]x/api HTTP/1.1",
    b"GET http://[/api HTTP/1.1",
    b"GET /api/v1/namespaces?watch=1&timeoutSeconds=1 HTTP/1.0",
)
HEADERS = (
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Expect: 100-continue",
    b"Expect: x",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br",
    b"Content-Encoding: x",
    b"Content-Type: " + b"a" * 9000,
    b"Connection: close",
    b"Connection: keep-alive, upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Authorization: Basic eA==",
    b"Authorization: Bearer \xff",
    b"Authorization: Bearer " + b"a." * 4000,
    b"X: " + b"y" * 70_000,
    b": x",
    b"X",
    b" folded",
    b"X\x00: y",
    b"Host: a\r\nHost: b",
    b"Host:",
    b"Accept: \xe9",
    b"Content-Type: application/json; charset=\xff",
    b"\r\n".join(b"X-%d: y" % number for number in range(300)),
    b"Transfer-Encoding: gzip, chunked",
    b"Te: trailers",
)
BODIES = (
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"-1\r\n",
    b"zz\r\n",
    b"5\r\nhel",
    b"\x1f\x8b\x08\x00",
    b"{}",
    b"GET /api HTTP/1.1\r\nHost: a\r\n\r\n" * 5,
    b"\x81\x85abcd12345",
    b"0\r\n" * 500,
)


def test_what_is_hardly_http(storm: Storm) -> None:
    server = storm.server

    def make(dice: random.Random, client: Client) -> None:
        lines = [dice.choice(LINES), *dice.sample(HEADERS, dice.randrange(4))]
        if dice.random() < 0.7:
            lines.insert(1, b"Authorization: Bearer " + server.token().encode())
        if dice.random() < 0.9:
            lines.insert(1, b"Host: localhost")
        data = b"\r\n".join(lines) + b"\r\n\r\n" + dice.choice((b"", dice.choice(BODIES)))
        client.last, client.sent = repr(data[:2000]), client.sent + 1
        connection = connect(server)
        connection.settimeout(PATIENCE)
        try:
            connection.sendall(data)
            # Some wait for more: that nothing comes is for the server to get over.
            if dice.random() < 0.5:
                connection.unwrap().shutdown(socket.SHUT_WR) if dice.random() < 0.1 else connection.settimeout(0.2)
            head = connection.recv(65536)
        except (OSError, ValueError):
            head = b""
        connection.close()
        if head.startswith(b"HTTP/1"):
            code = int(head.split(b" ", 2)[1])
            storm.codes[code] += 1
            if code >= 500:
                storm.problems.append(f"{head[:1000]!r}: {client.last}")

    storm.blow(make, REQUESTS // 20)
    assert storm.codes[200] > 0, f"nothing was HTTP: {storm.codes}"
