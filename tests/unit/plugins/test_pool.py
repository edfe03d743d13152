# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import threading

import pytest

WEB = {"name": "web", "labels": {"app": "web"}, "image": "web:1", "memory": "64Mi", "replicas": 2}


def stored(api):
    return api.get("virtualmachinepools", "default", "web")


def report(api, ready, replicas=None, **status):
    """Play the controller."""
    live = stored(api)
    replicas = live["spec"]["replicas"] if replicas is None else replicas
    status = {"replicas": replicas, "readyReplicas": ready, "labelSelector": "app=web", **status}
    api.put("virtualmachinepools", {**live, "status": status})


def test_a_pool_is_made_scaled_and_removed_once(api, run):
    assert run("pool", check=True, **WEB)["changed"]
    assert stored(api) is None
    made = run("pool", wait=False, max_unavailable="1", update_strategy={"proactive": {}}, **WEB)["result"]
    assert made["apiVersion"] == "pool.kubevirt.io/v1beta1"
    assert made["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert made["spec"]["maxUnavailable"] == 1
    template = made["spec"]["virtualMachineTemplate"]
    assert template["metadata"] == {"labels": {"app": "web"}}
    assert template["spec"]["runStrategy"] == "Always"
    assert template["spec"]["template"]["metadata"] == {"labels": {"app": "web"}}
    assert template["spec"]["template"]["spec"]["domain"]["memory"] == {"guest": "64Mi"}
    report(api, 2)
    assert not run("pool", **WEB)["changed"]
    assert run("pool_info", name="web", namespace="default", hidden_fields=[])["resources"] == [stored(api)]

    scaled = run("pool", wait=False, name="web", replicas=5, max_unavailable="25%", autohealing={})
    assert (scaled["changed"], scaled["result"]["spec"]["replicas"]) == (True, 5)
    assert (scaled["result"]["spec"]["maxUnavailable"], scaled["result"]["spec"]["autohealing"]) == ("25%", {})
    assert stored(api)["spec"]["virtualMachineTemplate"] == template

    assert run("pool", name="web", state="absent")["changed"]
    assert not run("pool", name="web", state="absent")["changed"]


def test_one_strategy_takes_the_place_of_another(api, run):
    run("pool", wait=False, update_strategy={"proactive": {"selectionPolicy": {"sortPolicy": "Oldest"}}}, **WEB)
    changed = run("pool", wait=False, name="web", update_strategy={"opportunistic": {}})
    assert changed["result"]["spec"]["updateStrategy"] == {"opportunistic": {}}
    assert not run("pool", wait=False, name="web", update_strategy={"opportunistic": {}})["changed"]


def test_machines_take_their_size_and_their_disks_from_elsewhere(api, run):
    disk = {"metadata": {"name": "root"}, "spec": {"source": {"blank": {}}}}
    options = {"instancetype": "u1.small", "preference": {"name": "linux", "kind": "VirtualMachinePreference"}}
    given = {**WEB, **options, "data_volume_templates": [disk], "wait": False}
    del given["memory"]
    spec = run("pool", **given)["result"]["spec"]["virtualMachineTemplate"]["spec"]
    assert spec["instancetype"] == {"kind": "VirtualMachineClusterInstancetype", "name": "u1.small"}
    assert spec["preference"] == {"kind": "VirtualMachinePreference", "name": "linux"}
    assert spec["dataVolumeTemplates"] == [disk]
    assert not run("pool", **given)["changed"]


def test_a_run_strategy_stays(api, run):
    made = run("pool", wait=False, run_strategy="Manual", **WEB)["result"]
    assert made["spec"]["virtualMachineTemplate"]["spec"]["runStrategy"] == "Manual"
    assert not run("pool", wait=False, **WEB)["changed"]


def test_it_waits_until_all_are_ready(api, run):
    run("pool", wait=False, **WEB)
    report(api, 0)
    threading.Timer(0.5, report, (api, 2)).start()
    assert run("pool", wait_timeout=60, **WEB)["result"]["status"]["readyReplicas"] == 2


@pytest.mark.parametrize(
    ("options", "ready", "replicas", "conditions"),
    [
        ({"run_strategy": "Halted"}, 0, 2, []),
        ({"paused": True}, 0, 0, [{"type": "ReplicaPaused", "status": "True"}]),
    ],
)
def test_guests_that_nobody_starts_arent_waited_for(api, run, options, ready, replicas, conditions):
    run("pool", wait=False, **WEB, **options)
    report(api, ready, replicas, conditions=conditions)
    assert not run("pool", wait_timeout=60, **WEB, **options).get("failed")


def test_what_keeps_them_from_being_ready_is_told(api, run):
    run("pool", wait=False, **WEB)
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedScaleOut",
        "message": "exceeded quota: small",
    }
    report(api, 1, 1, conditions=[failure])
    ready = {"type": "Ready", "status": "False", "reason": "GuestNotRunning", "message": "not reported as running"}
    api.put(
        "virtualmachines",
        {
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web"}},
            "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {}}}},
            "status": {"conditions": [ready]},
        },
    )
    failed = run("pool", wait_timeout=1, **WEB)
    assert failed["failed"]
    assert failed.msg.startswith("VirtualMachinePool default/web isn't ready within 1 seconds")
    assert "1 of 2 machines are ready" in failed.msg
    assert "FailedScaleOut: exceeded quota: small" in failed.msg
    assert "VirtualMachine default/web-1: Ready is False (GuestNotRunning" in failed.msg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": None}, "labels: missing for a new pool"),
        ({"replicas": -1}, "replicas: -1 is negative"),
        ({"max_unavailable": "some"}, "max_unavailable: 'some' is neither a number nor a percentage"),
        ({"memory": "lots"}, "memory: 'lots'"),
        ({"template": {"spec": {"domain": {}}}}, "template: spec.domain is in the wrong place"),
    ],
)
def test_bad_input_names_the_option(api, run, options, message):
    assert message in run("pool", wait=False, **{**WEB, **options}).msg
    assert stored(api) is None
