# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines that are migrated, and migrations that are cancelled."""

from __future__ import annotations

import threading
import time

import pytest

WEB = {"name": "web", "namespace": "default", "wait_timeout": 5, "image": "example.com/web:1", "memory": "64Mi"}
MOVE = {"vm": "web", "namespace": "default", "wait_timeout": 10}
PLURAL = "virtualmachineinstancemigrations"


def all_of(api):
    return [obj for path, obj in api.objects.items() if "/%s/" % PLURAL in path]


def end(api, phase, **state):
    """Play the controller: end the first migration that there is."""

    def play():
        deadline = time.monotonic() + 5
        while not (found := all_of(api)) and time.monotonic() < deadline:
            time.sleep(0.02)
        vmi = api.get("virtualmachineinstances", "default", "web")
        if phase == "Succeeded":
            api.put("virtualmachineinstances", {**vmi, "status": {**vmi["status"], "nodeName": "two"}})
        api.put(PLURAL, {**found[0], "status": {"phase": phase, "migrationState": state}})

    thread = threading.Thread(target=play)
    thread.start()
    return thread


@pytest.fixture
def web(api, run):
    run("vm", state="running", **WEB)
    vmi = api.get("virtualmachineinstances", "default", "web")
    api.put("virtualmachineinstances", {**vmi, "status": {**vmi["status"], "nodeName": "one"}})


def test_a_machine_moves(api, run, web):
    planned = run("migration", check=True, **MOVE)
    assert planned["changed"]
    assert all_of(api) == []
    controller = end(api, "Succeeded")
    done = run("migration", node_selector={"rack": "7"}, **MOVE)
    controller.join()
    assert (done["changed"], done["node"]) == (True, "two")
    assert done["migration"]["spec"] == {"vmiName": "web", "addedNodeSelector": {"rack": "7"}}
    found = run("migration_info", namespace="default")["resources"]
    assert [each["status"]["phase"] for each in found] == ["Succeeded"]


def test_a_machine_that_is_where_it_should_be_stays(api, run, web):
    for options in ({"node": "one"}, {"from_node": "two"}):
        assert not run("migration", **MOVE, **options)["changed"]
    assert all_of(api) == []
    assert run("migration", wait=False, from_node="one", node="three", **MOVE)["changed"]
    (made,) = all_of(api)
    assert made["spec"]["addedNodeSelector"] == {"kubernetes.io/hostname": "three"}


def test_one_that_is_under_way_is_waited_for_and_cancelled(api, run, web):
    assert run("migration", wait=False, **MOVE)["changed"]
    again = run("migration", wait=False, **MOVE)
    assert not again["changed"]
    assert len(all_of(api)) == 1
    assert run("migration", check=True, state="cancelled", **MOVE)["changed"]
    assert len(all_of(api)) == 1
    assert run("migration", state="cancelled", **MOVE)["changed"]
    assert all_of(api) == []
    assert not run("migration", state="cancelled", **MOVE)["changed"]


def test_a_failure_says_why(api, run, web):
    controller = end(api, "Failed", failureReason="the target ran out of memory")
    failed = run("migration", **MOVE)
    controller.join()
    assert failed["failed"]
    assert "isn't successful: it failed" in failed.msg
    assert "the target ran out of memory" in failed.msg


def test_a_machine_that_does_not_run(api, run):
    failed = run("migration", **MOVE)
    assert "VirtualMachineInstance default/web doesn't exist: only a running machine can be migrated" in failed.msg


def test_why_a_machine_finds_no_other_node(api, run, web):
    def play():
        migration = api.wait(lambda: next(iter(all_of(api)), None))
        labels = {"kubevirt.io/migrationJobUID": migration["metadata"]["uid"]}
        said = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector"
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
        pod = {"name": "virt-launcher-web-x", "namespace": "default", "labels": labels}
        api.put("pods", {"metadata": pod, "status": {"conditions": [unscheduled]}})
        api.put(PLURAL, {**migration, "status": {"phase": "Scheduling"}})

    scheduler = threading.Thread(target=play)
    scheduler.start()
    late = run("migration", **{**MOVE, "wait_timeout": 2}).msg
    scheduler.join()
    assert "Its phase is Scheduling; Pod virt-launcher-web-x isn't scheduled: 0/1 nodes are available" in late
