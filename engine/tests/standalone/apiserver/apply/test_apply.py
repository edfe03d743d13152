# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-side apply."""

import json

from ..conftest import WIDGET_PATH, WIDGETS, Server, any_kubectl, widget

APPLY = "application/apply-patch+yaml"


def send(server: Server, body: dict, manager: str = "one", force: bool = False) -> tuple[int, dict]:
    query = f"fieldManager={manager}&force={str(force).lower()}"
    return server.call("PATCH", f"{WIDGET_PATH}/{body['metadata']['name']}?{query}", body, APPLY)


def test_create_update_and_no_op(server: Server) -> None:
    code, made = send(server, widget("ssa", replicas=2))
    assert (code, made["spec"]["replicas"]) == (201, 2)
    assert made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"] == {"f:replicas": {}, "f:size": {}}
    assert send(server, widget("ssa", replicas=2)) == (200, made)
    code, changed = send(server, widget("ssa"))
    assert changed["spec"] == {"size": "small", "replicas": 1}, "a field no longer applied goes back to its default"


def test_conflict_force_and_shared_lists(server: Server) -> None:
    send(server, widget("shared", parts=[{"name": "a"}]))
    other = widget("shared", size="large", parts=[{"name": "b"}])
    del other["metadata"]["labels"]
    code, status = send(server, other, "two")
    assert (code, status["reason"]) == (409, "Conflict")
    assert status["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.size'
    code, taken = send(server, other, "two", force=True)
    assert (code, taken["spec"]["size"]) == (200, "large")
    assert taken["spec"]["parts"] == [{"name": "a"}, {"name": "b"}]
    mine = widget("shared", parts=[])
    del mine["spec"]["size"]
    code, left = send(server, mine)
    assert code == 200, left
    assert (left["spec"]["parts"], left["spec"]["size"]) == ([{"name": "b"}], "large")


def test_refusals(server: Server) -> None:
    assert server.call("PATCH", f"{WIDGET_PATH}/x", widget("x"), APPLY)[0] == 422
    assert server.call("PATCH", f"{WIDGET_PATH}/x?fieldManager=a", b"[1]", APPLY)[0] == 400
    assert server.call("PATCH", f"{WIDGET_PATH}/x?fieldManager=a", b"spec: {}", APPLY)[0] == 400


@any_kubectl
def test_kubectl_applies_on_the_server(server: Server) -> None:
    manifest = json.dumps(widget("kubectl-ssa"))
    assert "serverside-applied" in server.kubectl("apply", "--server-side", "-f", "-", stdin=manifest)
    assert "serverside-applied" in server.kubectl("apply", "--server-side", "-f", "-", stdin=manifest)
    definition = json.dumps(WIDGETS)
    assert "serverside-applied" in server.kubectl("apply", "--server-side", "-f", "-", stdin=definition)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "ssa"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    assert "serverside-applied" in server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(pod))
    server.kubectl("delete", "pod", "ssa", "--timeout=10s")
