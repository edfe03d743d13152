# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd requests by the thousand: none may end in a server error or hang, and memory stays what it is.

Objects are made from the schemas that the server itself publishes, then bent; paths, parameters, headers and patches
are bent too. ``TURTLES_FUZZ_REQUESTS`` says how many (`make test-faults`: 100,000), ``TURTLES_FUZZ_SEED`` which: a
number, or ``random`` for others each time; the number of that run is printed.
"""

import copy
import http.client
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings

from .conftest import WIDGET_PATH, WIDGETS, Server, widget

REQUESTS = int(os.environ.get("TURTLES_FUZZ_REQUESTS", "3000"))
# A change of the code is judged by the same requests each time; the long run looks for others.
SEED = os.environ.get("TURTLES_FUZZ_SEED", "1")
SEED = random.SystemRandom().randrange(10**6) if SEED == "random" else int(SEED)
CLIENTS = 4
#: Seconds that an answer may take, on a machine that does other things too.
PATIENCE = 30
#: Kinds that change how the server treats others' requests: their writes are dry runs only.
DRY = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations", "apiservices", "customresourcedefinitions",
       "resourcequotas", "limitranges", "validatingadmissionpolicies")  # fmt: skip
METHODS = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
#: No namespace but these is used, and they are never deleted.
NAMESPACES = ("default", "fuzz")

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**70), "", " ", "a", "x" * 300,
    "é",
    "\u0000", "../..", "null", "1", "-1Ki", "1e1000", "2020-01-01T00:00:00Z", "2020-13-45", "🐢", "a/b", "%2e", [],
    [None],
    [[]], {}, {"": ""}, {"a": None}, {"a": {"b": {"c": [1, {"d": None}]}}}, [1, "a", {}], {"name": 5}, [{"name": None}],
    "\ud7ff", "A-Z_", "10Gi", "999999999999999999999999", {"$ref": "#"}, {"metadata": []},
    "2020-01-01T00:00:00.5+25:00",
    "(((((", "[", "9" * 5000, {"x" * 500: 1}, "a.b.c/d", "\n", "self.x > 1", "169.254.0.1", "::1", "0.0.0.0/0",
)  # fmt: skip
PARTS = ("", "..", "%2e%2e", "%00", "%ff", "é", "x" * 300, "status", "scale", "a%2Fb", "%", "namespaces", "*", "~",
    "{}")
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
    "application/json", "*/*", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/vnd.kubernetes.protobuf",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "text/html", ";;;", "application/json;as=",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "a" * 3000, "application/json;q=x",
)
CONTENT = ("application/json", "application/yaml", "application/json-patch+json", "application/merge-patch+json",
           "application/strategic-merge-patch+json", "application/apply-patch+yaml", "text/plain", "x", "",
           "application/vnd.kubernetes.protobuf", "application/json; charset=latin-1")  # fmt: skip
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


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Collect every container and key in a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            found.append((value, key))
            places(inner, found)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found.append((value, index))
            places(inner, found)
    return found


def bend(dice: random.Random, value: Any) -> Any:
    """Change something, somewhere."""
    found = places(value, [])
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        if not found:
            return copy.deepcopy(dice.choice(ODD))
        holder, key = dice.choice(found)
        action = dice.random()
        if (isinstance(holder, dict) and key not in holder) or (isinstance(holder, list) and key >= len(holder)):
            continue
        if action < 0.6:
            holder[key] = copy.deepcopy(dice.choice(ODD))
        elif action < 0.8:
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            new = dice.choice(("x", "name", "é", "spec", "$patch", "$retainKeys", "$setElementOrder/x"))
            holder[new] = copy.deepcopy(dice.choice((*ODD, holder[key])))
    return value


def pointer(dice: random.Random, obj: Any) -> str:
    """Return a JSON pointer into an object, or almost."""
    parts, at = [], obj
    while isinstance(at, dict | list) and at and dice.random() < 0.8:
        key = dice.choice(list(at)) if isinstance(at, dict) else dice.randrange(len(at))
        parts.append(str(key).replace("~", "~0").replace("/", "~1"))
        at = at[key]
    if dice.random() < 0.3:
        parts.append(dice.choice(("-", "x", "0", "99", "~", "", "-1", "metadata")))
    return "".join(f"/{part}" for part in parts)


def json_patch(dice: random.Random, obj: Any) -> Any:
    operations = []
    for _ in range(dice.choice((1, 1, 2, 4))):
        one: dict[str, Any] = {"op": dice.choice(("add", "remove", "replace", "move", "copy", "test", "x")),
                               "path": pointer(dice, obj)}  # fmt: skip
        one[dice.choice(("value", "from", "value"))] = dice.choice((pointer(dice, obj),
    copy.deepcopy(dice.choice(ODD))))
        operations.append(one)
    return bend(dice, operations) if dice.random() < 0.2 else operations


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


def memory(server: Server) -> float:
    """Return the server's own memory in MB."""
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1024


def judge(code: int, raw: bytes, headers: Any) -> str:
    """Return what is wrong with an answer; '' when nothing is."""
    try:
        body = json.loads(raw) if raw and "json" in headers.get("Content-Type", "") and b"\n{" not in raw else {}
    except ValueError:
        return "the body is no JSON"
    if code == 404 and "paths" in body:
        return ""  # where there is nothing at all, clients are told what there is
    if code >= 400 and body and (body.get("kind") != "Status" or body.get("code") != code or not body.get("message")):
        return "no Status says what was wrong"
    if code == 504 and "Too large resource version" in body.get("message", ""):
        return ""
    return "a server error" if code >= 500 and code != 501 else ""


def test_no_request_breaks_the_server(stopped: Server) -> None:
    server = stopped
    server.start("--history-seconds", "5")
    assert server.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)[0] == 201
    assert server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "fuzz"}})[0] == 201
    server.call("POST", WIDGET_PATH, widget("f0"))
    fuzzer = Fuzzer(server, Schemas(server))
    codes: dict[int, int] = {}
    problems: list[str] = []
    token = server.token()
    memories: list[float] = []
    done = threading.Event()

    def run(number: int) -> None:
        dice = random.Random(f"{SEED}-{number}")
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.tls, timeout=PATIENCE)
        for _ in range(REQUESTS // CLIENTS):
            if done.is_set():
                return
            method, path, body, headers = fuzzer.request(dice)
            what = f"{method} {path} {headers} {body[:2000]!r}"
            try:
                connection.request(method, path, body or None, {**headers, "Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                raw = answer.read()
            except http.client.InvalidURL:
                continue
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if not isinstance(error, TimeoutError) and b"\0" in body + path.encode():
                    continue
                problems.append(f"{type(error).__name__} {error}: {what}")
            else:
                codes[answer.status] = codes.get(answer.status, 0) + 1
                wrong = judge(answer.status, raw, answer.headers)
                if wrong:
                    problems.append(f"{wrong}: {answer.status} {raw[:300]!r}\n  {what}")
            if len(problems) >= 20:
                done.set()
        connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    before = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(2)
        memories.append(memory(server))
    seconds = time.monotonic() - before
    print(f"\nseed {SEED}: {sum(codes.values())} answers in {seconds:.0f} s, {dict(sorted(codes.items()))}, "
          f"memory {[round(one) for one in memories[:: max(1, len(memories) // 12)]]} MB")  # fmt: skip
    assert not problems, f"seed {SEED}, {len(problems)} problems:\n" + "\n".join(problems[:20])
    assert codes.get(200, 0) + codes.get(201, 0) > REQUESTS / 20, "hardly anything got through: the fuzzer is too odd"
    late = memories[len(memories) // 2 :]
    assert REQUESTS < 20_000 or max(late) < 1.3 * min(late) + 20, memories
    assert server.call("GET", "/readyz")[0] == 200


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
