# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes that virtual machines leave."""

from __future__ import annotations

import pytest

DRAIN = {"name": "one", "wait_timeout": 10}


@pytest.fixture(autouse=True)
def node(api):
    api.put("nodes", {"metadata": {"name": "one"}, "spec": {}})


def launcher(api, name="web"):
    labels = {"kubevirt.io": "virt-launcher"}
    metadata = {"name": "virt-launcher-%s" % name, "namespace": "default", "labels": labels}
    api.put("pods", {"metadata": metadata, "spec": {"nodeName": "one"}, "status": {"phase": "Running"}})


def test_a_node_is_cordoned_once_and_taken_back_once(api, run):
    assert run("node_drain", check=True, state="cordoned", **DRAIN)["changed"]
    assert not api.get("nodes", None, "one")["spec"].get("unschedulable")
    assert run("node_drain", state="cordoned", **DRAIN)["changed"]
    assert api.get("nodes", None, "one")["spec"]["unschedulable"]
    assert not run("node_drain", state="cordoned", **DRAIN)["changed"]
    assert not run("node_drain", **DRAIN)["changed"]
    assert run("node_drain", state="schedulable", **DRAIN)["changed"]
    assert not api.get("nodes", None, "one")["spec"].get("unschedulable")


def test_an_unknown_node(api, run):
    failed = run("node_drain", name="nowhere")
    assert failed.msg.startswith("Node nowhere doesn't exist")


def test_what_would_leave(api, run):
    api.instance("default", "web", node="one")
    api.instance("default", "db", node="two")
    launcher(api)
    planned = run("node_drain", check=True, **DRAIN)
    assert planned["changed"]
    assert planned["machines"] == [{"namespace": "default", "name": "web", "node": "one"}]
    assert not api.get("nodes", None, "one")["spec"].get("unschedulable")
