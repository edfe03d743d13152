# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

WEB = {"name": "web", "namespace": "default", "wait_timeout": 5, "image": "example.com/web:1", "memory": "64Mi"}
SSH = {"vm": "web", "ports": [{"port": 22}], "wait": False}


def stored(api, name="web"):
    return api.get("services", "default", name)


def test_a_machine_is_exposed_once(api, run):
    run("vm", state="stopped", **WEB)
    assert run("service", check=True, **SSH)["changed"]
    assert stored(api) is None
    made = run("service", type="NodePort", labels={"team": "a"}, **SSH)
    assert made["changed"]
    assert made["result"]["spec"] == {
        "type": "NodePort",
        "selector": {"vm.kubevirt.io/name": "web"},
        "ports": [{"port": 22, "protocol": "TCP", "targetPort": 22}],
    }
    assert not run("service", **SSH)["changed"]
    assert made["result"] == run("service_info", name="web", namespace="default")["resources"][0]
    assert run("service", name="web", state="absent")["changed"]
    assert not run("service", name="web", state="absent")["changed"]


def test_a_machine_is_selected_by_its_host_name(api, run):
    run("vm", state="stopped", spec={"template": {"spec": {"hostname": "www"}}}, **WEB)
    run("service", **SSH)
    assert stored(api)["spec"]["selector"] == {"vm.kubevirt.io/name": "www"}


def test_what_the_server_allotted_stays(api, run):
    run("service", name="web", selector={"app": "web"}, type="NodePort", ports=[{"port": 22}], wait=False)
    allotted = stored(api)
    allotted["spec"]["ports"][0]["nodePort"] = 30022
    allotted["spec"]["clusterIP"] = "10.96.0.7"
    api.put("services", allotted)
    options = {"name": "web", "ports": [{"port": 80, "target_port": "http"}, {"port": 22}]}
    assert run("service", **options)["changed"]
    assert stored(api)["spec"]["ports"] == [
        {"name": "tcp-80", "port": 80, "protocol": "TCP", "targetPort": "http"},
        {"name": "tcp-22", "port": 22, "protocol": "TCP", "targetPort": 22, "nodePort": 30022},
    ]
    assert not run("service", **options)["changed"]
    run("service", name="web", selector={"tier": "front"}, type="ClusterIP", ports=[{"port": 22, "name": "ssh"}])
    spec = stored(api)["spec"]
    assert spec["selector"] == {"tier": "front"}
    assert spec["ports"] == [{"name": "ssh", "port": 22, "protocol": "TCP", "targetPort": 22}]
    assert spec["clusterIP"] == "10.96.0.7"


def test_a_headless_service(api, run):
    run("service", name="db", selector={"app": "db"}, headless=True)
    assert stored(api, "db")["spec"] == {"selector": {"app": "db"}, "clusterIP": "None"}


def test_a_load_balancer_that_gives_no_address_is_told(api, run):
    failed = run("service", name="web", selector={"a": "b"}, type="LoadBalancer", ports=[{"port": 80}], wait_timeout=1)
    assert "Service default/web isn't reached at an address within 1 seconds" in failed.msg
    assert "cluster has assigned it no address" in failed.msg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vm": "web", "ports": [{"port": 22}]}, "vm: VirtualMachine default/web doesn't exist. Create it first"),
        ({"name": "web", "ports": [{"port": 22}]}, "vm: missing for a new Service"),
        ({"name": "web", "selector": {"a": "b"}}, "ports: missing for a new Service"),
        ({"name": "web", "selector": {"a": "b"}, "ports": [{"port": 0}]}, "ports[0].port: 0 isn't a port"),
        (
            {"name": "web", "selector": {"a": "b"}, "ports": [{"port": 1, "node_port": 30000}]},
            "ports[0].node_port: a Service of type ClusterIP has none",
        ),
        (
            {"name": "web", "selector": {"a": "b"}, "headless": True, "type": "NodePort"},
            "headless: a Service of type NodePort needs a cluster IP",
        ),
    ],
)
def test_bad_input_names_the_option(api, run, options, message):
    failed = run("service", **options)
    assert message in failed.msg
    assert stored(api) is None
