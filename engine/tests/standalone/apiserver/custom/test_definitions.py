# SPDX-License-Identifier: GPL-3.0-or-later
"""CustomResourceDefinitions: their own validation, names, rules in CEL, versions and conversion, selectable fields."""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web

from ..admission.test_extension import Backend
from ..conftest import Server

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "defined.example.io"
_numbers = itertools.count()


def version(name: str = "v1", spec: dict | None = None, storage: bool = True, **more: object) -> dict:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = {"spec": anything if spec is None else spec}
    properties["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": properties}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}, **more}


def definition(plural: str, *versions: dict, kind: str = "", **spec: object) -> dict:
    names = {"plural": plural, "kind": kind or plural.capitalize(), **spec.pop("names", {})}
    found = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": list(versions or [version()]), **spec}
    return {"metadata": {"name": f"{plural}.{GROUP}"}, "spec": found}


@pytest.fixture
def define(server: Server) -> Iterator[Callable[..., str]]:
    """Make a definition; give the path of its resources in the first version."""
    made = []

    def make(*versions: dict, **more: object) -> str:
        plural = f"things{next(_numbers)}"
        code, answer = server.call("POST", DEFINITIONS, definition(plural, *versions, **more))
        assert code == 201, answer.get("message")
        made.append(plural)
        first = versions[0]["name"] if versions else "v1"
        return f"/apis/{GROUP}/{first}/namespaces/default/{plural}"

    yield make
    for plural in made:
        server.call("DELETE", f"{DEFINITIONS}/{plural}.{GROUP}")


def thing(spec: dict, name: str = "one", **more: object) -> dict:
    return {"metadata": {"name": name}, "spec": spec, **more}


def refused(server: Server, plural: str, *versions: dict, **more: object) -> str:
    code, answer = server.call("POST", DEFINITIONS, definition(plural, *versions, **more))
    assert code == 422, answer
    return answer["message"].partition(" is invalid: ")[2]


# -- schemas


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, ".type: Required value: must not be empty for specified object fields"),
        ({"type": "array"}, ".items: Required value: must be specified"),
        ({"type": "array", "items": {}}, ".items.type: Required value: must not be empty for specified array items"),
        ({"type": "string", "pattern": "(["}, '.pattern: Invalid value: "([": must be a valid regular expression, but'),
        ({"type": "string", "uniqueItems": True}, ".uniqueItems: Forbidden: uniqueItems cannot be set to true since"),
        (
            {"type": "object", "anyOf": [{"properties": {"a": {"minLength": 1}}}]},
            ".properties[a]: Required value: because it is defined in spec.validation.openAPIV3Schema.properties[spec]"
            ".anyOf[0].properties[a]",
        ),
        (
            {"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]},
            ".anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
        ),
        ({"type": "string", "default": 1}, '.default: Invalid value: "integer":  in body must be of type string'),
        (
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-map-keys": ["a"]},
            ".x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty",
        ),
    ],
)
def test_schema_must_be_structural(server: Server, spec: dict, message: str) -> None:
    found = refused(server, "wrongs", version(spec=spec))
    assert found.startswith(f"spec.validation.openAPIV3Schema.properties[spec]{message}"), found


def test_names_taken_are_not_accepted_until_they_are_free(server: Server) -> None:
    for plural, names in (("firsts", {"shortNames": ["fs"]}), ("seconds", {"shortNames": ["fs"]})):
        assert server.call("POST", DEFINITIONS, definition(plural, names=names))[0] == 201
    path = f"{DEFINITIONS}/seconds.{GROUP}"

    def conditions() -> dict:
        return {one["type"]: one for one in server.call("GET", path)[1]["status"]["conditions"]}

    found = conditions()
    assert found["NamesAccepted"]["reason"] == "ShortNamesConflict"
    assert found["NamesAccepted"]["message"] == '"fs" is already in use'
    assert found["Established"]["status"] == "False"
    assert server.call("GET", f"/apis/{GROUP}/v1/namespaces/default/seconds")[0] == 404
    server.call("DELETE", f"{DEFINITIONS}/firsts.{GROUP}")
    server.until(lambda: conditions()["Established"]["status"] == "True")
    assert conditions()["NamesAccepted"]["reason"] == "NoConflicts"
    assert server.call("GET", f"/apis/{GROUP}/v1/namespaces/default/seconds")[0] == 200
    server.call("DELETE", path)


def test_deletion_empties_first(server: Server, define) -> None:
    path = define()
    held = {**thing({}), "metadata": {"name": "held", "finalizers": ["example.io/wait"]}}
    assert server.call("POST", path, held)[0] == 201
    name = f"{DEFINITIONS}/{path.rpartition('/')[2]}.{GROUP}"
    server.call("DELETE", name)

    def terminating() -> bool:
        return any(one["type"] == "Terminating" for one in server.call("GET", name)[1]["status"]["conditions"])

    server.until(terminating)
    code, answer = server.call("POST", path, thing({}, "late"))
    assert (code, answer["reason"]) == (405, "MethodNotAllowed")
    server.call("PATCH", f"{path}/held", {"metadata": {"finalizers": None}}, "application/merge-patch+json")
    server.until(lambda: server.call("GET", name)[0] == 404)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "format": "ipv4"}, "10.0.0.1", "10.0.0.256"),
        ({"type": "string", "format": "date-time"}, "2026-01-01T00:00:00Z", "yesterday"),
        ({"type": "string", "format": "uri"}, "https://example.com/x", "no uri"),
        ({"type": "string", "format": "byte"}, "aGk=", "%"),
        ({"type": "string", "format": "duration"}, "1h30m", "soon"),
        ({"type": "string", "pattern": r"^\pL+\z"}, "äb", "a1"),
        ({"type": "integer", "format": "int32"}, 2**31 - 1, 2**31),
        ({"type": "number", "multipleOf": 0.5}, 1.5, 1.2),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 2, 1),
        ({"x-kubernetes-int-or-string": True}, "5%", 1.5),
        ({"type": "string", "nullable": True, "enum": ["a", None]}, None, "b"),
        ({"type": "string", "oneOf": [{"minLength": 3}, {"pattern": "^a"}]}, "ab", "abc"),
        ({"type": "string", "not": {"enum": ["x"]}}, "y", "x"),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}, ["a", "b"], ["a", "a"]),
    ],
)
def test_values(server: Server, define, schema: dict, good: object, bad: object) -> None:
    path = define(version(spec={"type": "object", "properties": {"a": schema}}))
    assert server.call("POST", path, thing({"a": good}))[0] == 201
    assert server.call("POST", path, thing({"a": bad}, "two"))[0] == 422


def test_defaults_and_pruning_reach_what_was_stored_before(server: Server, define) -> None:
    path = define(version(spec={"type": "object", "properties": {"a": {"type": "string"}, "gone": {"type": "string"}}}))
    server.call("POST", path, thing({"a": "x", "gone": "y"}))
    name = f"{DEFINITIONS}/{path.rpartition('/')[2]}.{GROUP}"
    crd = server.call("GET", name)[1]
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"] = {"a": {"type": "string"}, "b": {"type": "integer", "default": 7}}
    assert server.call("PUT", name, crd)[0] == 200
    assert server.call("GET", f"{path}/one")[1]["spec"] == {"a": "x", "b": 7}
    assert server.call("GET", path)[1]["items"][0]["spec"] == {"a": "x", "b": 7}
    event = server.watch(path)[0]
    assert event["object"]["spec"] == {"a": "x", "b": 7}


def test_what_was_invalid_before_and_stays_is_tolerated(server: Server, define) -> None:
    properties = {"a": {"type": "string"}, "b": {"type": "string"}}
    path = define(version(spec={"type": "object", "properties": properties}))
    server.call("POST", path, thing({"a": "long", "b": "x"}))
    name = f"{DEFINITIONS}/{path.rpartition('/')[2]}.{GROUP}"
    crd = server.call("GET", name)[1]
    inner = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    inner["a"].update({"maxLength": 2, "x-kubernetes-validations": [{"rule": "self != 'long'"}]})
    assert server.call("PUT", name, crd)[0] == 200

    def patch(spec: dict) -> int:
        return server.call("PATCH", f"{path}/one", {"spec": spec}, "application/merge-patch+json")[0]

    assert patch({"b": "y"}) == 200
    assert patch({"a": "longer"}) == 422
    assert patch({"a": "ok"}) == 200
    assert patch({"a": "long"}) == 422


# -- rules


@pytest.mark.parametrize(
    ("pod", "fields"),
    [
        ({"metadata": {"name": "a"}}, ["spec.pod.apiVersion", "spec.pod.kind"]),
        ({"apiVersion": "a/b/c", "kind": "Not One"}, ["spec.pod.apiVersion", "spec.pod.kind"]),
        ({"apiVersion": 1, "kind": ""}, ["spec.pod.apiVersion", "spec.pod.kind"]),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/b"}}, ["spec.pod.metadata.name"]),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "-"}}}, ["spec.pod.metadata.labels"]),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"ownerReferences": [5]}}, ["spec.pod.metadata"]),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": 5}, ["spec.pod.metadata"]),
    ],
)
def test_embedded_objects_are_objects(server: Server, define, pod: dict, fields: list[str]) -> None:
    embedded = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "x-kubernetes-preserve-unknown-fields": True,
    }
    path = define(version(spec={"type": "object", "properties": {"pod": embedded}}))
    code, answer = server.call("POST", path, thing({"pod": pod}))
    assert (code, [one["field"] for one in answer["details"]["causes"]]) == (422, fields)
    good = {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}, "spec": {"any": 1}}
    code, made = server.call("POST", path, thing({"pod": good}))
    assert (code, made["spec"]["pod"]) == (201, good)


def ruled(*rules: dict, **properties: object) -> dict:
    found = {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)}
    return version(spec=found)


INT = {"type": "integer"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"rule": "self.c > 1"}, "undefined field 'c'"),
        ({"rule": "self.a +"}, "Syntax error: mismatched input '<EOF>'"),
        ({"rule": "self.a == 'x'"}, "found no matching overload for '_==_' applied to '(int, string)'"),
        ({"rule": "self.a"}, "must evaluate to bool"),
        ({"rule": "nothing(self)"}, "undeclared reference to 'nothing'"),
        ({"rule": ""}, "rule is not specified"),
        ({"rule": "true", "message": " "}, "message must be non-empty if specified"),
        ({"rule": "true", "messageExpression": "1"}, "messageExpression must evaluate to string"),
        ({"rule": "true", "reason": "Odd"}, 'Unsupported value: "Odd"'),
        ({"rule": "true", "fieldPath": ".z"}, "does not refer to a valid field"),
    ],
)
def test_rules_are_compiled_with_the_definition(server: Server, rule: dict, message: str) -> None:
    found = refused(server, "ruleds", ruled(rule, a=INT))
    assert message in found, found
    assert "properties[spec].x-kubernetes-validations[0]" in found


def test_rules_judge_objects(server: Server, define) -> None:
    path = define(
        ruled(
            {"rule": "self.a <= self.b", "messageExpression": "'a (%d) is above b'.format([self.a])"},
            {"rule": "!has(self.c) || self.c.all(x, x.endsWith('!'))", "message": "shout", "fieldPath": ".c"},
            {"rule": "self.b < 100.5", "reason": "FieldValueForbidden", "message": "not so many"},
            a=INT,
            b=INT,
            c={"type": "array", "items": {"type": "string"}},
        )
    )
    assert server.call("POST", path, thing({"a": 1, "b": 2, "c": ["x!"]}))[0] == 201
    code, answer = server.call("POST", path, thing({"a": 3, "b": 2, "c": ["x"]}, "two"))
    assert code == 422
    causes = answer["details"]["causes"]
    assert [(one["field"], one["message"]) for one in causes] == [
        ("spec", 'Invalid value: "object": a (3) is above b'),
        ("spec.c", 'Invalid value: "object": shout'),
    ]
    code, answer = server.call("POST", path, thing({"a": 3, "b": 101}, "two"))
    assert answer["details"]["causes"][0]["reason"] == "FieldValueForbidden"
    # A field that isn't there is no false, it is an error.
    code, answer = server.call("POST", path, thing({"a": 3}, "two"))
    assert code == 422
    assert "no such key: b evaluating rule: self.a <= self.b" in answer["message"]


def test_rules_about_changes(server: Server, define) -> None:
    path = define(
        ruled(
            {"rule": "self.a >= oldSelf.a", "message": "never less"},
            {
                "rule": "!oldSelf.hasValue() || oldSelf.value().a < 10",
                "optionalOldSelf": True,
                "message": "ten is final",
            },
            a=INT,
        )
    )
    assert server.call("POST", path, thing({"a": 5}))[0] == 201

    def patch(a: int) -> tuple[int, str]:
        code, answer = server.call("PATCH", f"{path}/one", {"spec": {"a": a}}, "application/merge-patch+json")
        return code, answer.get("message", "")

    assert patch(4)[0] == 422
    assert patch(10)[0] == 200
    code, text = patch(11)
    assert code == 422
    assert "ten is final" in text


def test_library_of_functions(server: Server, define) -> None:
    expressions = [
        "quantity('1Gi').isGreaterThan(quantity(self.q))",
        "quantity('1Gi') == quantity('1024Mi')",
        "isURL(self.u) && url(self.u).getHostname() == 'example.com' && url(self.u).getPort() == '8443'",
        "cidr('10.0.0.0/8').containsIP(self.ip) && ip(self.ip).family() == 4 && !isIP('10.0.0')",
        "self.l.isSorted() && self.l.sum() == 6 && self.l.max() == 3 && self.l.indexOf(2) == 1",
        "self.s.find('[0-9]+') == '12' && self.s.findAll('[a-z]') == ['a', 'b']",
        "self.s.split('-').join('+').upperAscii() == 'A12+B' && self.s.substring(1, 3) == '12'",
        "self.t > timestamp('2020-01-01T00:00:00Z') && self.d == duration('90m')",
        "self.?missing.orValue('x') == 'x' && sets.contains(self.l, [1])",
        "self.x__dash__y == 1 && self.__if__ == 2 && self.m['k'] == 'v' && self.m.all(k, k.size() == 1)",
        "self.f > 1 && self.either == 5 && self.raw.anything[0] == 'z'",
    ]
    string = {"type": "string"}
    path = define(
        ruled(
            *({"rule": one} for one in expressions),
            q=string,
            u=string,
            ip=string,
            s=string,
            missing=string,
            l={"type": "array", "items": INT},
            t={"type": "string", "format": "date-time"},
            d={"type": "string", "format": "duration"},
            m={"type": "object", "additionalProperties": string},
            f={"type": "number"},
            either={"x-kubernetes-int-or-string": True},
            raw={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            **{"x-y": INT, "if": INT},
        )
    )
    spec = {
        "q": "512Mi",
        "u": "https://example.com:8443/x",
        "ip": "10.1.2.3",
        "s": "a12-b",
        "l": [1, 2, 3],
        "x-y": 1,
        "if": 2,
        "t": "2026-01-01T00:00:00Z",
        "d": "1h30m",
        "m": {"k": "v"},
        "f": 2,
        "either": 5,
        "raw": {"anything": ["z"]},
    }
    code, answer = server.call("POST", path, thing(spec))
    assert code == 201, answer["message"]


def test_no_rule_takes_forever(server: Server, define) -> None:
    numbers = {"type": "array", "items": INT}
    path = define(ruled({"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"}, l=numbers))
    code, answer = server.call("POST", path, thing({"l": list(range(1000))}))
    assert code == 422
    assert "running out of cost budget" in answer["message"]


@pytest.mark.parametrize(
    "rule",
    [
        # What a step of a comprehension costs is in nobody's count but the clock's.
        "self.l.all(x, !self.s.contains('aaaaaaaaaaaab'))",
        "self.s.replace('a', self.s).size() >= 0",
        "cel.bind(a, " * 20 + "self.s" + ", a + a)" * 20 + ".size() >= 0",
    ],
)
def test_no_rule_hangs_the_server(server: Server, define, rule: str) -> None:
    path = define(ruled({"rule": rule}, l={"type": "array", "items": INT}, s={"type": "string"}))
    body = thing({"l": list(range(60_000)), "s": "a" * 300_000})
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(server.call, "POST", path, body, timeout=60)
        while not writing.done():
            assert server.call("GET", "/api/v1/namespaces/default")[0] == 200, "others wait for an evaluation"
            time.sleep(0.2)
        code, answer = writing.result()
    assert code == 422
    assert "running out of cost budget" in answer["message"]
    # The next object is judged by the same rule.
    assert server.call("POST", path, thing({"l": [1], "s": ""}, "two"))[0] == 201


def test_rules_are_judged_after_their_process_ended(stopped: Server) -> None:
    server = stopped.start()
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    rule = {"rule": "self.text != 'bad'"}
    made = definition("things", ruled(rule, text={"type": "string"}))
    assert server.call("POST", DEFINITIONS, made)[0] == 201
    path = f"/apis/{GROUP}/v1/namespaces/default/things"
    assert server.call("POST", path, thing({"text": "bad"}))[0] == 422
    (judge,) = (int(one) for one in children.read_text().split())
    os.kill(judge, signal.SIGKILL)
    assert server.call("POST", path, thing({"text": "bad"}))[0] == 422
    assert server.call("POST", path, thing({"text": "good"}))[0] == 201
    (judge,) = (int(one) for one in children.read_text().split())
    server.stop(signal.SIGKILL)
    server.until(lambda: not Path(f"/proc/{judge}").exists())


# -- versions


def test_deprecated_version_warns(server: Server, define) -> None:
    path = define(version("v1", deprecated=True, deprecationWarning="use v2 instead"), version("v2", storage=False))
    _, headers, _ = server.raw("GET", path)
    assert headers["Warning"] == '299 - "use v2 instead"'
    _, headers, _ = server.raw("GET", f"{path}?watch=1&timeoutSeconds=1")
    assert headers["Warning"] == '299 - "use v2 instead"'
    assert "Warning" not in server.raw("GET", path.replace("/v1/", "/v2/"))[1]


def test_another_stored_version(server: Server, define) -> None:
    path = define(version("v1"), version("v2", storage=False))
    server.call("POST", path, thing({"a": 1}))
    name = f"{DEFINITIONS}/{path.rpartition('/')[2]}.{GROUP}"
    crd = server.call("GET", name)[1]
    crd["spec"]["versions"][0]["storage"], crd["spec"]["versions"][1]["storage"] = False, True
    code, crd = server.call("PUT", name, crd)
    assert (code, crd["status"]["storedVersions"]) == (200, ["v1", "v2"])
    for one in ("v1", "v2"):
        assert server.call("GET", f"{path.replace('/v1/', f'/{one}/')}/one")[1]["apiVersion"] == f"{GROUP}/{one}"
    del crd["spec"]["versions"][0]
    code, answer = server.call("PUT", name, crd)
    assert code == 422
    assert 'status.storedVersions[0]: Invalid value: "v1": must appear in spec.versions' in answer["message"]


def test_selectable_fields(server: Server, define) -> None:
    spec = {"type": "object", "properties": {"color": {"type": "string"}, "size": {"type": "integer"}}}
    path = define(version(spec=spec, selectableFields=[{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]))
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        server.call("POST", path, thing({"color": color, "size": 1}, name))

    def names(query: str) -> list[str]:
        return [one["metadata"]["name"] for one in server.call("GET", f"{path}?fieldSelector={query}")[1]["items"]]

    assert names("spec.color=red") == ["a", "c"]
    assert names("spec.color!=red,spec.size=1") == ["b"]
    assert server.call("GET", f"{path}?fieldSelector=spec.shape%3Dx")[0] == 400
    seen = [one["object"]["metadata"]["name"] for one in server.watch(f"{path}?fieldSelector=spec.color%3Dblue")]
    assert seen == ["b"]
    assert server.call("DELETE", f"{path}?fieldSelector=spec.color%3Dred")[0] == 200
    assert [one["metadata"]["name"] for one in server.call("GET", path)[1]["items"]] == ["b"]
    text = refused(server, "selects", version(spec=spec, selectableFields=[{"jsonPath": ".spec.none"}]))
    assert "spec.selectableFields[0].jsonPath: Invalid value" in text


def test_what_no_version_serves_ends_as_well(server: Server, define) -> None:
    path = define(version("v1"))
    plural = path.rpartition("/")[2]
    name = f"{DEFINITIONS}/{plural}.{GROUP}"
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "unserved"}})
    inside = path.replace("/default/", "/unserved/")
    for place in (path, inside):
        held = {"metadata": {"name": "held", "finalizers": ["foregroundDeletion"]}, "spec": {}}
        for body in (thing({}), held):
            assert server.call("POST", place, body)[0] == 201

    def serve(served: bool) -> None:
        found = server.call("GET", name)[1]
        found["spec"]["versions"][0]["served"] = served
        assert server.call("PUT", name, found)[0] == 200

    serve(False)
    assert server.call("GET", path)[0] == 404
    server.call("DELETE", "/api/v1/namespaces/unserved")
    server.until(lambda: server.call("GET", "/api/v1/namespaces/unserved")[0] == 404)
    serve(True)
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "unserved"}})
    assert server.call("GET", inside)[1]["items"] == []
    assert len(server.call("GET", path)[1]["items"]) == 2
    serve(False)
    server.call("DELETE", name)
    server.until(lambda: server.call("GET", name)[0] == 404)
    assert server.call("POST", DEFINITIONS, definition(plural))[0] == 201
    assert server.call("GET", path)[1]["items"] == []
    server.call("DELETE", "/api/v1/namespaces/unserved")


# -- groups of the Kubernetes community


@pytest.mark.parametrize("group", ["k8s.io", "x.k8s.io", "y.kubernetes.io"])
def test_a_protected_group_needs_approval(server: Server, group: str) -> None:
    body = definition("approvals")
    body["metadata"]["name"], body["spec"]["group"] = f"approvals.{group}", group
    where = "metadata.annotations[api-approved.kubernetes.io]"
    text = 'protected groups must have approval annotation "api-approved.kubernetes.io"'
    link = "see https://github.com/kubernetes/enhancements/pull/1111"
    code, status = server.call("POST", DEFINITIONS, body)
    assert (code, [(one["field"], one["message"]) for one in status["details"]["causes"]]) == (
        422,
        [(where, f"Required value: {text}, {link}")],
    )
    body["metadata"]["annotations"] = {"api-approved.kubernetes.io": "yes"}
    code, status = server.call("POST", DEFINITIONS, body)
    assert (code, status["details"]["causes"][0]["message"]) == (
        422,
        f'Invalid value: "yes": {text} with either a URL or a reason starting with "unapproved", {link}',
    )
    path = f"{DEFINITIONS}/approvals.{group}"

    def conformant() -> tuple[str, str, str]:
        conditions = server.call("GET", path)[1]["status"]["conditions"]
        (one,) = (one for one in conditions if one["type"] == "KubernetesAPIApprovalPolicyConformant")
        return one["status"], one["reason"], one["message"]

    body["metadata"]["annotations"] = {"api-approved.kubernetes.io": "unapproved, a test"}
    assert server.call("POST", DEFINITIONS, body)[0] == 201
    try:
        assert conformant() == ("False", "UnapprovedAnnotation", 'not approved: "unapproved, a test"')

        def annotate(value: str | None) -> int:
            patch = {"metadata": {"annotations": {"api-approved.kubernetes.io": value}}}
            return server.call("PATCH", path, patch, "application/merge-patch+json")[0]

        assert annotate(None) == 422
        assert annotate("https://example.io/approved") == 200
        assert conformant() == ("True", "ApprovedAnnotation", "approved in https://example.io/approved")
    finally:
        server.call("DELETE", path)


def test_other_groups_need_no_approval(server: Server, define) -> None:
    plural = define().rpartition("/")[2]
    conditions = server.call("GET", f"{DEFINITIONS}/{plural}.{GROUP}")[1]["status"]["conditions"]
    assert [one["type"] for one in conditions] == ["NamesAccepted", "Established"]


# -- conversion


def test_certificates_of_a_conversion_webhook(server: Server) -> None:
    client = {"url": "https://127.0.0.1:1/convert", "caBundle": "AAAA"}
    webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
    found = refused(server, "uncertified", conversion={"strategy": "Webhook", "webhook": webhook})
    assert found.startswith("spec.conversion.webhookClientConfig.caBundle: Invalid value: ")
    assert found.endswith("unable to load root certificates: unable to parse bytes as PEM block")


class Converting(Backend):
    """Converts spec.text of v1 to spec.texts of v2 and back, and does what a test asks it to do wrong."""

    reviews: list[dict]

    async def hook(self, request: web.Request) -> web.Response:
        review = (await request.json())["request"]
        self.reviews.append(review)
        converted = []
        for one in review["objects"]:
            new = json.loads(json.dumps(one))
            new["apiVersion"] = review["desiredAPIVersion"]
            spec = new["spec"]
            if review["desiredAPIVersion"].endswith("/v2"):
                spec["texts"] = spec.pop("text").split()
                spec["first"] = spec["texts"][0]
            else:
                spec["text"] = " ".join(spec.pop("texts"))
            converted.append(new)
        response = {"uid": review["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
        wrong = self.answers.get("wrong")
        if wrong:
            wrong(response)
        body = {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response}
        return web.json_response(body)


@pytest.fixture
def converting(server: Server, tmp_path) -> Iterator[Converting]:
    one = Converting(tmp_path, str(server.config / "pki/front-proxy-ca.crt"))
    one.reviews = []
    yield one
    one.stop()


@pytest.fixture
def converted(converting: Converting, define) -> str:
    text = {"type": "object", "properties": {"text": {"type": "string"}}}
    texts = {"type": "object", "properties": {"texts": {"type": "array", "items": {"type": "string"}}}}
    client = {"url": f"https://127.0.0.1:{converting.port}/convert", "caBundle": converting.bundle}
    webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
    versions = version("v1", text), version("v2", texts, storage=False)
    return define(*versions, conversion={"strategy": "Webhook", "webhook": webhook})


def test_conversion_by_webhook(server: Server, converting: Converting, converted: str) -> None:
    new = converted.replace("/v1/", "/v2/")
    assert server.call("POST", new, thing({"texts": ["a", "b"]}))[0] == 201
    assert server.call("GET", f"{converted}/one")[1]["spec"] == {"text": "a b"}
    for number in range(5):
        server.call("POST", converted, thing({"text": "x y"}, f"n{number}"))
    converting.reviews.clear()
    items = server.call("GET", new)[1]["items"]
    assert [one["spec"]["texts"] for one in items] == [["x", "y"]] * 5 + [["a", "b"]]
    assert {one["apiVersion"] for one in items} == {f"{GROUP}/v2"}
    assert len(converting.reviews) <= 1, "a list takes one call"
    patched = {"spec": {"texts": ["c"]}}
    code, answer = server.call("PATCH", f"{new}/one", patched, "application/merge-patch+json")
    assert (code, answer["spec"]) == (200, {"texts": ["c"]})
    assert server.call("GET", f"{converted}/one")[1]["spec"] == {"text": "c"}
    events = server.watch(new)
    assert {one["object"]["apiVersion"] for one in events} == {f"{GROUP}/v2"}
    assert len(events) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda response: response.update(uid="x"), 'got "x"'),
        (lambda response: response.update(result={"status": "Failed", "message": "I won't"}), "failed: I won't"),
        (lambda response: response.update(convertedObjects=[]), "returned 0 objects, expected 1"),
        (
            lambda response: response["convertedObjects"][0].update(apiVersion="x/v9"),
            "converted object at index 0: invalid groupVersion",
        ),
        (
            lambda response: response["convertedObjects"][0]["metadata"].update(name="other"),
            "invalid metadata in object at index 0: must have the same name",
        ),
    ],
)
def test_conversion_that_fails(server: Server, converting: Converting, converted: str, wrong, message: str) -> None:
    server.call("POST", converted, thing({"text": "a"}))
    converting.answers["wrong"] = wrong
    code, answer = server.call("GET", f"{converted.replace('/v1/', '/v2/')}/one")
    assert code == 500
    assert answer["message"].startswith(("conversion webhook for", "invalid response from conversion webhook"))
    assert message in answer["message"]
    assert server.call("GET", f"{converted}/one")[0] == 200, "in the stored version nothing is converted"
    assert server.watch(converted.replace("/v1/", "/v2/"))[-1]["type"] == "ERROR"
    del converting.answers["wrong"]


def test_fields_are_selected_in_the_version_asked_for(server: Server, converting: Converting, define) -> None:
    string = {"type": "string"}
    text = {"type": "object", "properties": {"text": string}}
    texts = {"type": "array", "items": string}
    texts = {"type": "object", "properties": {"texts": texts, "first": string}}
    client = {"url": f"https://127.0.0.1:{converting.port}/convert", "caBundle": converting.bundle}
    versions = version("v1", text), version("v2", texts, False, selectableFields=[{"jsonPath": ".spec.first"}])
    webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
    path = define(*versions, conversion={"strategy": "Webhook", "webhook": webhook})
    new = path.replace("/v1/", "/v2/")
    for name, words in (("one", "a b"), ("two", "c d"), ("three", "a c")):
        assert server.call("POST", path, thing({"text": words}, name))[0] == 201
    selected = f"{new}?fieldSelector=spec.first%3Da"
    listed = server.call("GET", selected)[1]
    assert [one["metadata"]["name"] for one in listed["items"]] == ["one", "three"]
    first = server.call("GET", f"{selected}&limit=1")[1]
    rest = server.call("GET", f"{selected}&limit=1&continue={first['metadata']['continue']}")[1]
    assert [one["metadata"]["name"] for one in first["items"] + rest["items"]] == ["one", "three"]
    assert server.call("GET", f"{path}?fieldSelector=spec.first%3Da")[0] == 400, "v1 has no such field"
    server.call("PATCH", f"{path}/one", {"spec": {"text": "b a"}}, "application/merge-patch+json")
    server.call("PATCH", f"{path}/two", {"spec": {"text": "a d"}}, "application/merge-patch+json")
    events = server.watch(f"{selected}&resourceVersion={listed['metadata']['resourceVersion']}")
    seen = [(one["type"], one["object"]["metadata"]["name"]) for one in events]
    assert seen == [("DELETED", "one"), ("ADDED", "two")]
    assert server.call("DELETE", selected)[0] == 200
    assert [one["metadata"]["name"] for one in server.call("GET", path)[1]["items"]] == ["one"]


def test_conversion_keeps_metadata(server: Server, converting: Converting, converted: str) -> None:
    def change(response: dict) -> None:
        for one in response["convertedObjects"]:
            one["metadata"].update(labels={"by": "webhook"}, finalizers=["example.io/sneaked"])

    server.call("POST", converted, thing({"text": "a"}))
    converting.answers["wrong"] = change
    found = server.call("GET", f"{converted.replace('/v1/', '/v2/')}/one")[1]["metadata"]
    assert found["labels"] == {"by": "webhook"}
    assert "finalizers" not in found
    del converting.answers["wrong"]


def fail(response: dict) -> None:
    response.update(result={"status": "Failed", "message": "out of order"})


def test_nothing_that_a_webhook_said_before_stands_in_for_it(
    server: Server, converting: Converting, converted: str
) -> None:
    new = converted.replace("/v1/", "/v2/")
    assert server.call("POST", converted, thing({"text": "a"}))[0] == 201
    assert server.call("GET", f"{new}/one")[1]["spec"] == {"texts": ["a"]}
    converting.answers["wrong"] = fail
    for method, path, body in (
        ("GET", f"{new}/one", None),
        ("GET", new, None),
        ("PATCH", f"{new}/one", {"metadata": {"labels": {"a": "b"}}}),
    ):
        code, answer = server.call(method, path, body, "application/merge-patch+json")
        assert (code, answer["message"].rpartition(": ")[2]) == (500, "out of order"), (method, path)
    assert server.call("GET", f"{converted}/one")[0] == 200
    del converting.answers["wrong"]


def test_what_is_only_deleted_is_not_converted(server: Server, converting: Converting, converted: str) -> None:
    new = converted.replace("/v1/", "/v2/")
    for name in ("one", "two"):
        held = {"name": name, "finalizers": ["example.io/wait"] if name == "two" else []}
        assert server.call("POST", converted, {"metadata": held, "spec": {"text": "a"}})[0] == 201
    converting.answers["wrong"] = fail
    for name in ("one", "two"):
        code, status = server.call("DELETE", f"{new}/{name}")
        assert (code, status["status"]) == (200, "Success"), name
    assert server.call("GET", f"{converted}/one")[0] == 404
    assert "deletionTimestamp" in server.call("GET", f"{converted}/two")[1]["metadata"]
    assert server.call("DELETE", new)[0] == 500, "its answer shows them"
    merge = "application/merge-patch+json"
    assert server.call("PATCH", f"{converted}/two", {"metadata": {"finalizers": None}}, merge)[0] == 200
    assert server.call("GET", f"{converted}/two")[0] == 404
    del converting.answers["wrong"]


def test_a_namespace_and_a_definition_end_without_their_webhook(server: Server, converting: Converting, define) -> None:
    """Objects of all versions, with what the garbage collector itself has to take away."""
    client = {"url": f"https://127.0.0.1:{converting.port}/convert", "caBundle": converting.bundle}
    webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
    versions = version("v1"), version("v2", storage=False)
    path = define(*versions, conversion={"strategy": "Webhook", "webhook": webhook})
    plural = path.rpartition("/")[2]
    inside = path.replace("/default/", "/ending/")
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "ending"}})
    for number, place in enumerate((inside, path)):
        for name in ("a", "b"):
            held = ["foregroundDeletion"] if name == "b" else []
            body = {"metadata": {"name": name, "finalizers": held}, "spec": {"text": "x", "number": number}}
            assert server.call("POST", place, body)[0] == 201
    definition_path = f"{DEFINITIONS}/{plural}.{GROUP}"
    found = server.call("GET", definition_path)[1]
    for one in found["spec"]["versions"]:
        one["storage"] = one["name"] == "v2"
    assert server.call("PUT", definition_path, found)[0] == 200
    converting.answers["wrong"] = fail
    server.call("DELETE", "/api/v1/namespaces/ending")
    server.until(lambda: server.call("GET", "/api/v1/namespaces/ending")[0] == 404)
    server.call("DELETE", definition_path)
    server.until(lambda: server.call("GET", definition_path)[0] == 404)
    del converting.answers["wrong"]
