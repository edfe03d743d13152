# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import threading

import pytest

WEB = {"name": "web", "labels": {"app": "web"}, "image": "web:1", "memory": "64Mi", "replicas": 2}


def stored(api):
    return api.get("virtualmachineinstancereplicasets", "default", "web")


def report(api, ready, replicas=None, **status):
    """Play the controller."""
    live = stored(api)
    replicas = live["spec"]["replicas"] if replicas is None else replicas
    status = {"replicas": replicas, "readyReplicas": ready, "labelSelector": "app=web", **status}
    api.put("virtualmachineinstancereplicasets", {**live, "status": status})


def test_a_set_is_made_scaled_and_removed_once(api, run):
    assert run("replicaset", check=True, **WEB)["changed"]
    assert stored(api) is None
    made = run("replicaset", wait=False, **WEB)["result"]
    assert made["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert made["spec"]["template"]["metadata"] == {"labels": {"app": "web"}}
    assert made["spec"]["template"]["spec"]["domain"]["memory"] == {"guest": "64Mi"}
    report(api, 2)
    assert not run("replicaset", **WEB)["changed"]
    assert run("replicaset_info", name="web", namespace="default", hidden_fields=[])["resources"] == [stored(api)]

    scaled = run("replicaset", wait=False, name="web", replicas=5)
    assert (scaled["changed"], scaled["result"]["spec"]["replicas"]) == (True, 5)
    assert stored(api)["spec"]["template"] == made["spec"]["template"]

    assert run("replicaset", name="web", state="absent")["changed"]
    assert not run("replicaset", name="web", state="absent")["changed"]


def test_it_waits_until_all_are_ready(api, run):
    run("replicaset", wait=False, **WEB)
    report(api, 0)
    threading.Timer(0.5, report, (api, 2)).start()
    assert run("replicaset", wait_timeout=60, **WEB)["result"]["status"]["readyReplicas"] == 2


def test_a_paused_set_is_waited_for_no_longer_than_it_takes_to_pause(api, run):
    run("replicaset", wait=False, **WEB)
    report(api, 0, 0, conditions=[{"type": "ReplicaPaused", "status": "True"}])
    assert run("replicaset", name="web", paused=True, wait_timeout=60)["changed"]


def test_what_keeps_them_from_being_ready_is_told(api, run):
    run("replicaset", wait=False, **WEB)
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}
    report(api, 1, 1, conditions=[failure])
    ready = {"type": "Ready", "status": "False", "reason": "GuestNotRunning", "message": "not reported as running"}
    api.instance("default", "webx1", labels={"app": "web"}, conditions=[ready])
    failed = run("replicaset", wait_timeout=1, **WEB)
    assert failed["failed"]
    assert failed.msg.startswith("VirtualMachineInstanceReplicaSet default/web isn't ready within 1 seconds")
    assert "1 of 2 instances are ready" in failed.msg
    assert "FailedCreate: exceeded quota: small" in failed.msg
    assert "VirtualMachineInstance default/webx1: Ready is False (GuestNotRunning: not reported" in failed.msg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": None}, "labels: missing for a new replica set"),
        ({"replicas": -1}, "replicas: -1 is negative"),
        ({"memory": "lots"}, "memory: 'lots'"),
        ({"template": {"domain": {}}}, "template.domain is in the wrong place"),
    ],
)
def test_bad_input_names_the_option(api, run, options, message):
    assert message in run("replicaset", wait=False, **{**WEB, **options}).msg
    assert stored(api) is None
