# SPDX-License-Identifier: GPL-3.0-or-later
"""The scale subresource: apply, ownership, webhooks.

What is compared with kube-apiserver is in tests/cluster/parity/corpus/scale.yaml.
"""

import itertools
from collections.abc import Iterator

import pytest

from ..admission.test_extension import Backend
from ..conftest import WIDGET_PATH, Server, widget

APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
_numbers = itertools.count()


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    """A Widget with two replicas that "maker" applied."""
    one = f"scale{next(_numbers)}"
    url = f"{WIDGET_PATH}/{one}?fieldManager=maker"
    assert server.call("PATCH", url, widget(one, replicas=2), APPLY)[0] == 201
    yield one
    server.call("DELETE", f"{WIDGET_PATH}/{one}")


def scale(name: str, replicas: int, **metadata: str) -> dict:
    metadata = {"name": name, **metadata}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": replicas}}


def owners(server: Server, name: str) -> set[tuple[str, str, str]]:
    """Manager, operation and subresource of who owns the replicas."""
    entries = server.call("GET", f"{WIDGET_PATH}/{name}")[1]["metadata"]["managedFields"]
    return {
        (one["manager"], one["operation"], one.get("subresource", ""))
        for one in entries
        if "f:replicas" in one["fieldsV1"].get("f:spec", {})
    }


def test_apply_takes_ownership(server: Server, name: str) -> None:
    url = f"{WIDGET_PATH}/{name}/scale"
    code, answer = server.call("PATCH", f"{url}?fieldManager=scaler", scale(name, 5), APPLY)
    assert (code, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == 'Apply failed with 1 conflict: conflict with "maker": .spec.replicas'
    code, answer = server.call("PATCH", f"{url}?fieldManager=scaler", scale(name, 2), APPLY)
    assert (code, answer["kind"], answer["spec"]) == (200, "Scale", {"replicas": 2})
    assert owners(server, name) == {("maker", "Apply", ""), ("scaler", "Apply", "scale")}
    code, answer = server.call("PATCH", f"{url}?fieldManager=scaler&force=true", scale(name, 5), APPLY)
    assert (code, answer["spec"]) == (200, {"replicas": 5})
    assert owners(server, name) == {("scaler", "Apply", "scale")}
    # Who leaves the replicas out of a new configuration leaves them alone.
    whole = widget(name)
    assert server.call("PATCH", f"{WIDGET_PATH}/{name}?fieldManager=maker", whole, APPLY)[0] == 200
    assert server.call("GET", url)[1]["spec"] == {"replicas": 5}


def test_apply_that_cannot_be(server: Server, name: str) -> None:
    url = f"{WIDGET_PATH}/{name}/scale?fieldManager=scaler"
    assert server.call("PATCH", url.partition("?")[0], scale(name, 5), APPLY)[0] == 422
    assert server.call("PATCH", url, widget(name), APPLY)[0] == 400
    assert server.call("PATCH", url, scale("other", 5), APPLY)[0] == 400
    assert server.call("PATCH", url, scale(name, 2, resourceVersion="1"), APPLY)[0] == 409
    assert server.call("PATCH", url, scale(name, -1) | {"spec": {"replicas": "x"}}, APPLY)[0] == 400
    assert server.call("PATCH", url.replace(name, "none"), scale("none", 2), APPLY)[0] == 404
    assert owners(server, name) == {("maker", "Apply", "")}


def test_updates_own_as_the_subresource(server: Server, name: str) -> None:
    url = f"{WIDGET_PATH}/{name}/scale?fieldManager=hand"
    assert server.call("PATCH", url, {"spec": {"replicas": 3}}, MERGE)[0] == 200
    assert owners(server, name) == {("hand", "Update", "scale")}


def test_webhooks_see_the_scale(server: Server, name: str, tmp_path) -> None:
    backend = Backend(tmp_path, str(server.config / "pki/front-proxy-ca.crt"))
    rule = {"operations": ["UPDATE"], "apiGroups": ["example.io"], "apiVersions": ["*"], "resources": ["widgets/scale"]}
    hook = {
        "name": "scale.example.io",
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": f"https://127.0.0.1:{backend.port}/hook", "caBundle": backend.bundle},
    }
    configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    made = {"metadata": {"name": "scales"}, "webhooks": [hook]}
    assert server.call("POST", configurations, made)[0] == 201
    try:
        assert server.call("PUT", f"{WIDGET_PATH}/{name}/scale", scale(name, 4))[0] == 200
        assert server.call("PATCH", f"{WIDGET_PATH}/{name}", {"spec": {"size": "large"}}, MERGE)[0] == 200
    finally:
        server.call("DELETE", f"{configurations}/scales")
        backend.stop()
    (review,) = backend.seen
    assert (review["kind"]["kind"], review["resource"]["resource"], review["subResource"]) == (
        "Scale",
        "widgets",
        "scale",
    )
    assert (review["oldObject"]["spec"], review["object"]["spec"]) == ({"replicas": 2}, {"replicas": 4})
