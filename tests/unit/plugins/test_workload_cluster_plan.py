# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a workload cluster's declaration becomes, and what is refused of it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turtles.kubevirt.plugins.filter.workload_cluster_drain_obstacles import (
    workload_cluster_drain_obstacles,
)
from ansible_collections.turtles.kubevirt.plugins.filter.workload_cluster_node_patches import (
    workload_cluster_node_patches,
)
from ansible_collections.turtles.kubevirt.plugins.filter.workload_cluster_plan import workload_cluster_plan

TAINT = {"key": "example.com/gpu", "value": "yes", "effect": "NoSchedule"}
DECLARATION = {
    "name": "dev",
    "version": "1.33.2",
    "image": "registry.example.com/node:1",
    "public_key": "ssh-ed25519 AAAA",
    "pod_cidr": "172.20.0.0/16",
    "service_cidr": "172.21.0.0/16",
}


def plan(observed=None, **changes):
    return workload_cluster_plan({**DECLARATION, **changes}, **(observed or {}))


def test_the_shortest_declaration_is_a_control_plane_and_a_worker():
    planned = plan()
    assert (planned["control_plane"], planned["workers"]) == (["dev-control-plane-1"], ["dev-worker-1"])
    assert planned["new"] == ["dev-control-plane-1", "dev-worker-1"]
    first, second = planned["machines"]
    assert first["labels"] == {"cluster.x-k8s.io/cluster-name": "dev", "cluster.x-k8s.io/role": "control-plane"}
    assert second["labels"]["cluster.x-k8s.io/role"] == "worker"
    assert second["interfaces"] == [{"name": "default", "binding": "bridge"}]
    assert second["cloud_init"]["user_data"]["ssh_authorized_keys"] == ["ssh-ed25519 AAAA"]


def test_machines_have_the_size_and_the_options_of_their_kind():
    workers = {"count": 2, "cores": 4, "memory": "8Gi", "machine": {"node_selector": {"disk": "ssd"}}}
    machines = plan(workers=workers)["machines"]
    assert [(m["name"], m["cpu"], m["memory"]) for m in machines] == [
        ("dev-control-plane-1", {"cores": 2}, "2Gi"),
        ("dev-worker-1", {"cores": 4}, "8Gi"),
        ("dev-worker-2", {"cores": 4}, "8Gi"),
    ]
    assert [m.get("node_selector") for m in machines] == [None, {"disk": "ssd"}, {"disk": "ssd"}]


def test_pools_of_workers():
    pools = [{"name": "web", "count": 2}, {"name": "gpu", "cores": 8, "labels": {"gpu": "yes"}, "taints": [TAINT]}]
    planned = plan({"existing": ["dev-worker-1", "dev-web-1", "dev-web-3"]}, pools=pools)
    assert planned["workers"] == ["dev-web-1", "dev-web-2", "dev-gpu-1"]
    assert planned["surplus"] == ["dev-web-3", "dev-worker-1"]
    assert planned["machines"][-1]["cpu"] == {"cores": 8}
    assert planned["nodes"]["dev-gpu-1"] == {"labels": {"gpu": "yes"}, "taints": [TAINT]}
    assert planned["nodes"]["dev-web-1"] == {"labels": {}, "taints": []}


def node(name, labels=None, taints=None):
    return {"metadata": {"name": name, "labels": dict(labels or {})}, "spec": {"taints": list(taints or [])}}


def patched(found, patch):
    """Return a node after a merge patch."""
    metadata, spec = found["metadata"], found["spec"]
    labels = {**metadata["labels"], **patch["metadata"]["labels"]}
    return {
        "metadata": {
            "name": metadata["name"],
            "labels": {key: value for key, value in labels.items() if value is not None},
            "annotations": {**metadata.get("annotations", {}), **patch["metadata"]["annotations"]},
        },
        "spec": {**spec, **patch.get("spec", {})},
    }


def test_nodes_get_the_labels_and_taints_of_their_pools():
    pools = [{"name": "gpu", "labels": {"gpu": "yes"}, "taints": [TAINT]}]
    planned = plan(pools=pools)
    foreign = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    found = [
        node("dev-control-plane-1", {"mine": "1"}),
        node("dev-gpu-1", {"mine": "1"}, [foreign]),
        node("other", {"gpu": "no"}),
    ]
    patches = workload_cluster_node_patches(found, planned)
    assert list(patches) == ["dev-gpu-1"]
    after = patched(found[1], patches["dev-gpu-1"])
    assert after["metadata"]["labels"] == {"mine": "1", "gpu": "yes"}
    assert after["spec"]["taints"] == [foreign, TAINT]
    assert workload_cluster_node_patches([after], planned) == {}

    # Others are put in their place, and what others have set stays.
    changed = {**TAINT, "value": "no"}
    planned = plan(pools=[{"name": "gpu", "labels": {"disk": "ssd"}, "taints": [changed]}])
    after = patched(after, workload_cluster_node_patches([after], planned)["dev-gpu-1"])
    assert after["metadata"]["labels"] == {"mine": "1", "disk": "ssd"}
    assert after["spec"]["taints"] == [foreign, changed]

    planned = plan(pools=[{"name": "gpu"}])
    after = patched(after, workload_cluster_node_patches([after], planned)["dev-gpu-1"])
    assert (after["metadata"]["labels"], after["spec"]["taints"]) == ({"mine": "1"}, [foreign])
    assert workload_cluster_node_patches([after], planned) == {}


def pod(name, on, phase="Running", **labels):
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"nodeName": on},
        "status": {"phase": phase},
    }


def budget(healthy, pods, selector=None):
    return {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": selector or {"matchLabels": {"app": "web"}}},
        "status": {"desiredHealthy": healthy, "expectedPods": pods},
    }


@pytest.mark.parametrize(
    ("count", "budgets", "words"),
    [
        (1, [budget(1, 2)], None),
        (1, [budget(0, 2)], None),
        (1, [budget(2, 2)], "web-b there belong to the PodDisruptionBudget shop/web, which allows none of its Pods"),
        (0, [budget(1, 2)], "which wants 1 Pods to be healthy, and no worker is left"),
        (1, [budget(2, 2, {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]})], None),
        (1, [budget(2, 2, {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]})], "web-b"),
        (1, [budget(2, 2, {"matchExpressions": [{"key": "app", "operator": "Exists"}]})], "web-b"),
        (1, [budget(2, 2, {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})], None),
        (1, [{**budget(2, 2), "metadata": {"name": "web", "namespace": "other"}}], None),
    ],
)
def test_budgets_that_keep_workers(count, budgets, words):
    pods = [
        pod("web-a", "dev-worker-1", app="web"),
        pod("web-b", "dev-worker-2", app="web"),
        pod("job", "dev-worker-2", "Succeeded", app="web"),
        pod("db", "dev-worker-2", app="base"),
    ]
    planned = plan({"existing": ["dev-worker-1", "dev-worker-2"]}, workers={"count": count})
    reasons = workload_cluster_drain_obstacles(planned, pods, budgets)
    if words is None:
        assert reasons == []
        return
    [reason] = reasons
    assert words in reason
    assert "job" not in reason
    assert reason.startswith("dev-worker-2 would" if count else "dev-worker-1, dev-worker-2 would be drained")


@pytest.mark.parametrize(
    ("count", "new", "surplus"),
    [(1, [], ["dev-worker-2"]), (2, [], []), (3, ["dev-worker-3"], []), (0, [], ["dev-worker-1", "dev-worker-2"])],
)
def test_another_number_of_workers(count, new, surplus):
    existing = ["dev-worker-2", "dev-control-plane-1", "dev-worker-1"]
    planned = plan({"existing": existing, "recorded": "1.33.2"}, workers={"count": count})
    assert (planned["new"], planned["surplus"]) == (new, surplus)


@pytest.mark.parametrize(
    ("version", "config_api", "socket"),
    [
        ("1.20.2", "v1beta2", "/run/containerd/containerd.sock"),
        ("1.22.0", "v1beta3", "/run/containerd/containerd.sock"),
        ("v1.30.14", "v1beta3", "unix:///run/containerd/containerd.sock"),
        ("1.33.2", "v1beta4", "unix:///run/containerd/containerd.sock"),
    ],
)
def test_what_each_version_of_kubeadm_reads(version, config_api, socket):
    planned = plan(version=version)
    assert planned["version"] == version.removeprefix("v")
    assert (planned["config_api"], planned["cri_socket"]) == (f"kubeadm.k8s.io/{config_api}", socket)


@pytest.mark.parametrize(
    ("changes", "observed", "words"),
    [
        ({"name": "Dev"}, {}, "workload_cluster_name is 'Dev': give at most 40 lowercase letters"),
        ({"name": "dev-"}, {}, "workload_cluster_name is 'dev-'"),
        ({"name": "d" * 41}, {}, "workload_cluster_name is"),
        ({"version": 1.33}, {}, "workload_cluster_version is 1.33: give a version of Kubernetes with all three"),
        ({"version": "latest"}, {}, "workload_cluster_version is 'latest'"),
        ({}, {"recorded": "1.32.0"}, "the cluster runs 1.32.0: the role can't upgrade it. Leave it at 1.32.0"),
        ({}, {"available": "v1.32.0"}, "the kubeadm in workload_cluster_programs is 1.32.0: give a folder"),
        ({"image": ""}, {}, "workload_cluster_image is missing: name a containerDisk image"),
        ({"control_plane": {"count": 2}}, {}, "workload_cluster_control_plane.count is 2: etcd needs an odd number"),
        (
            {"control_plane": {"count": 3}},
            {},
            "workload_cluster_control_plane.count is 3: the role makes control planes of",
        ),
        ({"control_plane": {"count": 0}}, {}, "workload_cluster_control_plane.count is 0"),
        ({"control_plane": {"cores": 1}}, {}, "workload_cluster_control_plane.cores is 1: kubeadm needs 2"),
        ({"workers": {"count": -1}}, {}, "workload_cluster_workers.count is -1: give a whole number, 0 or more"),
        ({"workers": {"count": "many"}}, {}, "workload_cluster_workers.count is 'many'"),
        ({"workers": {"number": 2}}, {}, "workload_cluster_workers.number: unknown key. The keys are count"),
        ({"workers": {"machine": {"image": "x"}}}, {}, "workload_cluster_workers.machine.image: the role sets it"),
        ({"workers": 2}, {}, "workload_cluster_workers is 2: give a dictionary with count"),
        ({"workers": {"count": 1}, "pools": [{"name": "a"}]}, {}, "both given: describe all workers as pools"),
        ({"pools": {"a": {}}}, {}, "workload_cluster_pools is {'a': {}}: give a list of pools"),
        ({"pools": ["a"]}, {}, "workload_cluster_pools[0] is 'a': give a dictionary with name, count"),
        ({"pools": [{"count": 1}]}, {}, "workload_cluster_pools[0].name is None"),
        ({"pools": [{"name": "control-plane"}]}, {}, "and not control-plane"),
        ({"pools": [{"name": "a"}, {"name": "a"}]}, {}, "workload_cluster_pools[1].name is 'a', as that of another"),
        ({"pools": [{"name": "a", "size": 1}]}, {}, "workload_cluster_pools[0].size: unknown key"),
        ({"workers": {"labels": ["a"]}}, {}, "workload_cluster_workers.labels is ['a']: give a dictionary"),
        ({"workers": {"labels": {"a b": "c"}}}, {}, "workload_cluster_workers.labels: 'a b' is no name of a label"),
        ({"workers": {"labels": {"a": True}}}, {}, "workload_cluster_workers.labels.a is True: give a text"),
        ({"workers": {"taints": {"a": "b"}}}, {}, "workload_cluster_workers.taints is {'a': 'b'}: give a list"),
        ({"workers": {"taints": [{"key": "a"}]}}, {}, "workload_cluster_workers.taints[0].effect is None: give NoSch"),
        ({"workers": {"taints": [{"key": "", "effect": "NoExecute"}]}}, {}, "taints[0].key is ''"),
        ({"workers": {"taints": [TAINT, TAINT]}}, {}, "taints[1]: example.com/gpu with NoSchedule is there twice"),
        ({"pod_cidr": "172.20.0.1/16"}, {}, "workload_cluster_pod_cidr is '172.20.0.1/16': give an IPv4 network"),
        ({"pod_cidr": "172.20.0.0/25"}, {}, "give at least a /24"),
        ({"service_cidr": "172.20.128.0/20"}, {}, "which overlaps workload_cluster_pod_cidr (172.20.0.0/16)"),
        (
            {"service_cidr": "10.96.0.0/16"},
            {"used": ["10.96.0.1"]},
            "which contains 10.96.0.1 of the infrastructure cluster",
        ),
    ],
)
def test_what_cannot_be_is_named_with_a_remedy(changes, observed, words):
    with pytest.raises(AnsibleFilterError) as refused:
        plan(observed, **changes)
    assert words in str(refused.value)
