# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhooks in detail: conditions, versions of reviews, answers that won't do, being asked again."""

import base64
import json

import pytest
from aiohttp import web

from ..conftest import WIDGET_PATH, WIDGETS, Server, widget
from .test_extension import CONFIGURATIONS, Backend, backend, configure  # noqa: F401 - a fixture

VALIDATING = f"{CONFIGURATIONS}/validatingwebhookconfigurations"


def condition(expression: str, name: str = "one") -> dict:
    return {"name": name, "expression": expression}


def create(server: Server, name: str, query: str = "", **spec: object) -> tuple[int, dict]:
    obj = widget(name)
    obj["spec"].update(spec)
    answer = server.call("POST", f"{WIDGET_PATH}{query}", obj)
    server.call("DELETE", f"{WIDGET_PATH}/{name}")
    return answer


def test_conditions_decide_who_is_asked(server: Server, backend: Backend) -> None:  # noqa: F811
    conditions = [
        condition("request.operation == 'CREATE' && object.metadata.name.startsWith('asked')"),
        condition("!('system:nodes' in request.userInfo.groups)", "two"),
        condition("authorizer.group('').resource('pods').namespace('default').check('delete').allowed()", "three"),
    ]
    configure(server, backend, "Validating", matchConditions=conditions)
    assert create(server, "asked")[0] == 201
    assert create(server, "unasked")[0] == 201
    assert [one["name"] for one in backend.seen] == ["asked"]


@pytest.mark.parametrize(("policy", "code"), [("Fail", 403), ("Ignore", 201)])
def test_condition_without_an_answer(server: Server, backend: Backend, policy: str, code: int) -> None:  # noqa: F811
    configure(
        server, backend, "Validating", matchConditions=[condition("object.spec.nothing == 1")], failurePolicy=policy
    )
    found, answer = create(server, "unclear")
    assert found == code
    assert not backend.seen
    if policy == "Fail":
        assert "expression 'object.spec.nothing == 1' resulted in error: no such key: nothing" in answer["message"]


def test_one_condition_not_met_decides(server: Server, backend: Backend) -> None:  # noqa: F811
    conditions = [condition("object.spec.nothing == 1"), condition("false", "two")]
    configure(server, backend, "Validating", matchConditions=conditions)
    assert create(server, "decided")[0] == 201
    assert not backend.seen


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("request.nothing == 'x'", "undefined field 'nothing'"),
        ("request.name", "must evaluate to bool"),
        ("object.metadata.name ==", "Syntax error"),
        ("", "Required value"),
    ],
)
def test_conditions_are_compiled_with_the_configuration(server: Server, expression: str, message: str) -> None:
    webhook = {
        "name": "a.example.com",
        "clientConfig": {"url": "https://127.0.0.1/"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "matchConditions": [condition(expression)],
    }
    code, answer = server.call("POST", VALIDATING, {"metadata": {"name": "conditions"}, "webhooks": [webhook]})
    assert code == 422
    assert answer["message"].count("webhooks[0].matchConditions[0].expression: ") == 1
    assert message in answer["message"]


class Odd(Backend):
    """Answers with what a test gives, as it is."""

    whole: dict

    async def hook(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.seen.append(review)
        return web.json_response(self.whole)


@pytest.fixture
def odd(server: Server, tmp_path):
    one = Odd(tmp_path, str(server.config / "pki/front-proxy-ca.crt"))
    yield one
    for plural in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
        server.call("DELETE", f"{CONFIGURATIONS}/{plural}/test")
    one.stop()


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({}, "webhook response was absent"),
        ({"response": {"uid": "x", "allowed": True}}, "expected webhook response of admission.k8s.io/v1"),
        (
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "x", "allowed": True}},
            'got "x"',
        ),
    ],
)
def test_answers_that_are_none(server: Server, odd: Odd, whole: dict, message: str) -> None:
    odd.whole = whole
    configure(server, odd, "Validating")
    code, answer = create(server, "odd")
    assert (code, answer["reason"]) == (500, "InternalError")
    text = 'failed calling webhook "validating.test.example.io": received invalid webhook response: '
    assert f"Internal error occurred: {text}" in answer["message"]
    assert message in answer["message"]


def test_reviews_of_the_older_version(server: Server, odd: Odd) -> None:
    odd.whole = {"response": {"allowed": False}}
    configure(server, odd, "Validating", admissionReviewVersions=["v0", "v1beta1"])
    code, answer = create(server, "older")
    assert odd.seen[0]["apiVersion"] == "admission.k8s.io/v1beta1"
    text = 'admission webhook "validating.test.example.io" denied the request without explanation'
    assert (code, answer["message"]) == (400, text)


def test_unreachable_webhook_is_named(server: Server, backend: Backend) -> None:  # noqa: F811
    configure(server, backend, "Validating", clientConfig={"service": {"namespace": "default", "name": "nowhere"}})
    code, answer = create(server, "nobody")
    assert code == 500
    text = 'failed calling webhook "validating.test.example.io": failed to call webhook: service "nowhere" not found'
    assert answer["message"] == f"Internal error occurred: {text}"


def test_timeout_is_told(server: Server, backend: Backend) -> None:  # noqa: F811
    backend.answers["validating"] = {"sleep": 5}
    configure(server, backend, "Validating", timeoutSeconds=1)
    code, answer = create(server, "late")
    url = f"https://127.0.0.1:{backend.port}/validating?timeout=1s"
    assert code == 500
    assert answer["message"].endswith(f'failed to call webhook: Post "{url}": context deadline exceeded')


def test_dry_run_needs_a_webhook_without_side_effects(server: Server, backend: Backend) -> None:  # noqa: F811
    configure(server, backend, "Validating", sideEffects="NoneOnDryRun")
    assert create(server, "dry", "?dryRun=All")[0] == 201
    assert backend.seen[0]["dryRun"] is True


def test_mutating_webhook_sees_later_changes(server: Server, backend: Backend) -> None:  # noqa: F811
    patch = base64.b64encode(json.dumps([{"op": "add", "path": "/spec/replicas", "value": 5}]).encode()).decode()
    backend.answers["second"] = {"patchType": "JSONPatch", "patch": patch}
    rule = {"apiGroups": ["example.io"], "apiVersions": ["v1"], "resources": ["widgets"], "operations": ["CREATE"]}
    webhooks = [
        {
            "name": f"{name}.test.example.io",
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "reinvocationPolicy": policy,
            "clientConfig": {"url": f"https://127.0.0.1:{backend.port}/{name}", "caBundle": backend.bundle},
        }
        for name, policy in (("first", "IfNeeded"), ("second", "Never"))
    ]
    path = f"{CONFIGURATIONS}/mutatingwebhookconfigurations"
    assert server.call("POST", path, {"metadata": {"name": "test"}, "webhooks": webhooks})[0] == 201
    code, made = create(server, "again")
    assert (code, made["spec"]["replicas"]) == (201, 5)
    assert len(backend.seen) == 3
    assert backend.seen[2]["object"]["spec"]["replicas"] == 5


def test_selectors_are_about_what_earlier_webhooks_left(server: Server, backend: Backend) -> None:  # noqa: F811
    labels = [{"op": "add", "path": "/metadata/labels", "value": {"stage": "two"}}]
    backend.answers["first"] = {
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(labels).encode()).decode(),
    }
    rule = {"apiGroups": ["example.io"], "apiVersions": ["v1"], "resources": ["widgets"], "operations": ["CREATE"]}
    webhooks = [
        {
            "name": f"{name}.test.example.io",
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": f"https://127.0.0.1:{backend.port}/{name}", "caBundle": backend.bundle},
            **more,
        }
        for name, more in (
            ("first", {}),
            ("second", {"objectSelector": {"matchLabels": {"stage": "two"}}}),
        )
    ]
    path = f"{CONFIGURATIONS}/mutatingwebhookconfigurations"
    assert server.call("POST", path, {"metadata": {"name": "test"}, "webhooks": webhooks})[0] == 201
    assert create(server, "staged")[0] == 201
    assert [one["object"]["metadata"]["labels"] for one in backend.seen] == [{"app": "staged"}, {"stage": "two"}]


def test_webhooks_annotate_the_audit_log(stopped: Server, tmp_path) -> None:
    path = stopped.root / "audit.log"
    stopped.start("--audit-log-path", str(path))
    assert stopped.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)[0] == 201
    one = Backend(tmp_path, str(stopped.config / "pki/front-proxy-ca.crt"))
    try:
        one.answers["validating"] = {"auditAnnotations": {"seen": "yes"}}
        configure(stopped, one, "Validating")
        assert create(stopped, "noted")[0] == 201
    finally:
        one.stop()
    stopped.stop()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    noted = [one.get("annotations", {}).get("validating.test.example.io/seen") for one in events]
    assert "yes" in noted
