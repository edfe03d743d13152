# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules kubevirt and cluster_info."""

from __future__ import annotations

import threading
import time

import pytest

LABELS = {"kubevirt.io": "virt-handler"}


@pytest.fixture(autouse=True)
def _namespace(api):
    api.put("namespaces", {"metadata": {"name": "kubevirt"}})


def conditions(**statuses):
    return {"conditions": [{"type": kind, "status": value, "message": "words"} for kind, value in statuses.items()]}


def put_object(api, status, **spec):
    metadata = {"name": "kubevirt", "namespace": "kubevirt"}
    api.put("kubevirts", {"apiVersion": "kubevirt.io/v1", "metadata": metadata, "spec": spec, "status": status})


def put_daemonset(api, available, updated=2, nodes=2):
    status = {"desiredNumberScheduled": nodes, "updatedNumberScheduled": updated, "numberAvailable": available}
    metadata = {"name": "virt-handler", "namespace": "kubevirt", "labels": LABELS}
    api.put("daemonsets", {"apiVersion": "apps/v1", "metadata": metadata, "spec": {}, "status": status})


def test_what_the_server_is(run):
    found = run("cluster_info")
    assert found["version"]["minor"] == "31"
    assert found["groups"] == {"policy": ["v1"]}
    assert found["kubevirt"] == {}
    assert not found["changed"]


def test_a_query_selects_of_what_the_server_is(run):
    found = run("cluster_info", query="groups.policy[0]")
    assert (found["query_result"], found["version"]["minor"]) == ("v1", "31")
    assert "query_result" not in run("cluster_info")


def test_the_kubevirt_object_is_among_what_the_server_is(api, run):
    put_object(api, conditions(Available="True"), infra={"replicas": 3})
    found = run("cluster_info")["kubevirt"]
    assert (found["kind"], found["spec"]) == ("KubeVirt", {"infra": {"replicas": 3}})


def test_a_spec_that_the_server_applies(api, run):
    put_object(api, conditions(Available="True"))
    run("kubevirt", apply=True, spec={"infra": {"replicas": 3}}, wait=False)
    (method, path, query) = api.written()[-1]
    assert (method, path) == ("PATCH", "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt")
    assert query["fieldManager"] == "turtles.kubevirt"
    assert query["force"] == "true"


def test_it_waits_until_everything_is_available(api, run):
    put_daemonset(api, 1)
    put_object(api, conditions(Available="True", Progressing="True"))

    def later():
        put_daemonset(api, 2)
        put_object(api, conditions(Available="True", Progressing="False"), configuration={"cpuModel": "Nehalem"})

    threading.Timer(0.5, later).start()
    found = run("kubevirt", wait_timeout=60)
    assert found["result"]["spec"]["configuration"] == {"cpuModel": "Nehalem"}
    assert not found["changed"]


def test_it_waits_on_as_long_as_further_nodes_are_renewed(api, run):
    put_object(api, conditions(Available="True"))
    put_daemonset(api, 3, updated=0, nodes=3)
    timers = [threading.Timer(0.7 * n, put_daemonset, (api, 3, n, 3)) for n in (1, 2, 3)]
    for timer in timers:
        timer.start()
    begun = time.monotonic()
    assert not run("kubevirt", wait_timeout=1).get("failed")
    assert time.monotonic() - begun > 2
    put_daemonset(api, 2, updated=2, nodes=3)
    begun = time.monotonic()
    found = run("kubevirt", wait_timeout=1)
    assert "DaemonSet virt-handler: 2 of 3 available, 2 of the latest version" in found.msg
    assert time.monotonic() - begun < 2


def test_the_configuration_is_merged_once(api, run):
    put_object(api, conditions(Available="True"), configuration={"cpuModel": "Nehalem"})
    spec = {"configuration": {"machineType": "q35"}}
    assert run("kubevirt", check=True, spec=spec)["changed"]
    assert "machineType" not in api.get("kubevirts", "kubevirt", "kubevirt")["spec"]["configuration"]
    assert run("kubevirt", spec=spec)["changed"]
    assert not run("kubevirt", spec=spec)["changed"]
    assert api.get("kubevirts", "kubevirt", "kubevirt")["spec"]["configuration"] == {
        "cpuModel": "Nehalem",
        "machineType": "q35",
    }


def test_a_failure_says_what_is_missing(api, run):
    put_daemonset(api, 0)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
    statuses = [{"name": "virt-handler", "ready": False, "state": waiting}]
    metadata = {"name": "virt-handler-x", "namespace": "kubevirt", "labels": LABELS}
    api.put("pods", {"metadata": metadata, "status": {"phase": "Pending", "containerStatuses": statuses}})
    api.put(
        "events",
        {
            "metadata": {"name": "e", "namespace": "kubevirt"},
            "type": "Warning",
            "reason": "Failed",
            "message": "no such image",
            "involvedObject": {"kind": "Pod", "name": "virt-handler-x"},
        },
    )
    found = run("kubevirt", wait_timeout=1)
    assert found["failed"]
    assert "DaemonSet virt-handler: 0 of 2 available" in found.msg
    waiting = "Pod virt-handler-x: container virt-handler is waiting (ImagePullBackOff): manifest unknown"
    assert waiting in found["diagnosis"]
    assert "no such image" in found.msg


def put_deployment(api, available):
    metadata = {"name": "virt-api", "namespace": "kubevirt", "labels": {"kubevirt.io": "virt-api"}}
    status = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": available}
    api.put("deployments", {"apiVersion": "apps/v1", "metadata": metadata, "spec": {"replicas": 2}, "status": status})


def test_rollout_is_waited_for_before_the_object_is_declared(api, run):
    # What is broken in it may be what the next task repairs
    put_daemonset(api, 0)
    put_deployment(api, 0)
    assert "Deployment virt-api: 0 of 2 available" in run("kubevirt", wait_for="rollout", wait_timeout=1).msg
    assert not api.written()
    threading.Timer(0.3, put_deployment, (api, 2)).start()
    found = run("kubevirt", wait_for="rollout", wait_timeout=60)
    assert found["changed"]
    written = [path for _method, path, _query in api.written()]
    assert written == ["/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts"]


def put_pod(api, name, node, ready):
    api.put("nodes", {"metadata": {"name": node}, "status": conditions(Ready="True" if ready else "Unknown")})
    metadata = {"name": name, "namespace": "kubevirt", "labels": LABELS}
    api.put("pods", {"metadata": metadata, "spec": {"nodeName": node}})


def test_rollout_of_one_component_is_waited_for(api, run):
    put_object(api, conditions(Available="True"))
    # One that the next task may repair
    put_deployment(api, 0)
    put_daemonset(api, 2, updated=1)
    threading.Timer(0.3, put_daemonset, (api, 2)).start()
    assert not run("kubevirt", wait_for="rollout", components=["virt-handler"], wait_timeout=60)["changed"]
    assert run("kubevirt", wait_for="rollout", components=["virt-api"], wait_timeout=1)["failed"]


def test_a_node_that_is_away_does_not_keep_the_other_components(api, run):
    put_object(api, conditions(Available="True"))
    put_daemonset(api, 1, updated=1)
    put_pod(api, "virt-handler-1", "node1", ready=True)
    put_pod(api, "virt-handler-2", "node2", ready=True)
    options = {"wait_for": "rollout", "components": ["virt-handler"], "wait_timeout": 1}
    assert "DaemonSet virt-handler: 1 of 2 available" in run("kubevirt", **options).msg
    put_pod(api, "virt-handler-2", "node2", ready=False)
    found = run("kubevirt", **options)
    assert not found.get("failed")
    assert "nodes that aren't Ready (node2)" in found["warnings"][0]
    # One more is missing, which isn't for the node
    put_daemonset(api, 0, updated=1)
    assert run("kubevirt", **options)["failed"]
    # That it can be used everywhere isn't said
    put_daemonset(api, 1, updated=1)
    assert run("kubevirt", wait_timeout=1)["failed"]


@pytest.mark.parametrize("kind", ["DaemonSet", "Namespace"])
def test_pods_on_nodes_that_are_away_are_named_where_something_does_not_go(api, run, kind):
    name, namespace = ("virt-handler", "kubevirt") if kind == "DaemonSet" else ("kubevirt", None)
    metadata = {"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
    if namespace:
        metadata["namespace"] = namespace
    obj = {"apiVersion": "apps/v1" if namespace else "v1", "kind": kind, "metadata": metadata}
    api.put(kind.lower() + "s", {**obj, "spec": {"selector": {"matchLabels": LABELS}}})
    put_pod(api, "virt-handler-1", "node1", ready=True)
    put_pod(api, "virt-handler-2", "node2", ready=False)
    found = run("manifest", state="absent", definition=obj, wait_timeout=1)
    assert found["failed"]
    assert (
        "is waiting for Pods on nodes that aren't Ready: virt-handler-2 on node node2. They end when the" in found.msg
    )
    assert "virt-handler-1" not in found.msg


def test_removal_is_refused_while_there_are_machines(api, run):
    put_object(api, conditions(Available="True"))
    api.instance("default", "web")
    found = run("kubevirt", state="absent")
    assert found["failed"]
    assert "there are virtual machines (1: default/web)" in found.msg
    assert api.get("kubevirts", "kubevirt", "kubevirt")
    assert run("kubevirt", state="absent", remove_workloads=True, check=True)["changed"]
    assert run("kubevirt", state="absent", remove_workloads=True)["changed"]
    patched = [method for method, path, _query in api.written() if path.endswith("/kubevirts/kubevirt")]
    assert patched == ["PATCH", "DELETE"]
    api.remove("/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/web")
    assert not run("kubevirt", state="absent")["changed"]


def test_removal_is_refused_where_kubevirt_is_in_another_namespace(api, run):
    metadata = {"name": "hyperconverged", "namespace": "openshift-cnv"}
    api.put("kubevirts", {"apiVersion": "kubevirt.io/v1", "metadata": metadata, "status": {}})
    found = run("kubevirt", state="absent", remove_workloads=True)
    assert found["failed"]
    assert "There is no KubeVirt kubevirt/kubevirt, but the cluster has the KubeVirt openshift-cnv/hyper" in found.msg
    assert not api.written()


def test_an_object_nobody_looks_after_goes_as_well(api, run):
    put_object(api, {})
    stuck = api.get("kubevirts", "kubevirt", "kubevirt")
    stuck["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["foregroundDeleteKubeVirt"])
    api.put("kubevirts", stuck)
    assert run("kubevirt", state="absent", wait_timeout=60)["changed"]
    assert api.get("kubevirts", "kubevirt", "kubevirt") is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"spec": {"configuration": {}}}, "spec.spec is in the wrong place; it belongs in spec."),
        ({"useEmulation": True}, "it belongs in spec.configuration.developerConfiguration.useEmulation."),
        ({"configuration": {"uninstallStrategy": "x"}}, "it belongs in spec.uninstallStrategy."),
        ({"configuration": True}, "spec.configuration: must be a mapping, but is the boolean true"),
        ({"workloads": {"nodePlacement": {"nodeSelector": {1: "a"}}}}, "nodePlacement.nodeSelector: the name 1 is a"),
    ],
)
def test_a_spec_in_the_wrong_place_is_named(api, run, spec, words):
    assert words in run("kubevirt", spec=spec, wait=False).msg
    assert api.written() == []


def test_a_removal_that_fails_after_its_first_write_says_changed(api, run):
    metadata = {"name": "kubevirt", "namespace": "kubevirt"}
    api.put("kubevirts", {"apiVersion": "kubevirt.io/v1", "metadata": metadata, "spec": {}})
    api.put("virtualmachines", {"metadata": {"name": "web", "namespace": "default"}, "spec": {}})
    api.forbidden = lambda method, path: method == "DELETE"
    failed = run("kubevirt", state="absent", remove_workloads=True)
    assert (failed["failed"], failed["changed"]) == (True, True)
