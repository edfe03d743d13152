# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a workload cluster's declaration becomes, and what is refused of it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turtles.kubevirt.plugins.filter.workload_cluster_plan import workload_cluster_plan

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
        ({"name": "Dev"}, {}, "workload_cluster_name is 'Dev': give at most 40 lower-case letters"),
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
