# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The launcher Pod as the cluster has it: what Services, policies and tools that know KubeVirt's rely on."""

from __future__ import annotations

from typing import Any

import pytest
from deployed import Deployed
from test_network import address_of


@pytest.fixture
def vm(cluster: Deployed) -> dict[str, Any]:
    found = cluster.virtual_machine("web", grace_period=40, labels={"app": "shop"})
    template = found["spec"]["template"]
    template["metadata"]["annotations"] = {"note": "x"}
    template["spec"]["hostname"] = "front"
    template["spec"]["domain"]["cpu"] = {"cores": 2}
    template["spec"]["domain"]["devices"]["interfaces"][0]["ports"] = [{"port": 22, "name": "ssh"}]
    return found


def test_the_launcher_pod(cluster: Deployed, namespace: str, vm: dict[str, Any]) -> None:
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "web")
    cluster.ssh(address_of(vmi), "true")
    (pod,) = cluster.core.list_namespaced_pod(namespace).items
    uid, name = vmi["metadata"]["uid"], pod.metadata.name
    assert name.startswith("virt-launcher-web-")
    (owner,) = pod.metadata.owner_references
    assert (owner.kind, owner.uid, owner.controller) == ("VirtualMachineInstance", uid, True)
    assert pod.metadata.labels == {
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": uid,
        "kubevirt.io/nodeName": vmi["status"]["nodeName"],
        "vm.kubevirt.io/name": "front",
        "vmi.kubevirt.io/id": "web",
        # the template's own
        "app": "shop",
        "kubevirt.io/domain": "web",
    }
    annotations = pod.metadata.annotations
    overhead = int(annotations["kubevirt.io/memory-overhead-bytes"])
    expected = {
        "note": "x",
        "kubevirt.io/domain": "web",
        "kubectl.kubernetes.io/default-container": "compute",
        "kubevirt.io/migrationTransportUnix": "true",
        "kubevirt.io/pci-topology-version": "v3",
        "descheduler.alpha.kubernetes.io/request-evict-only": "",
        "istio.io/reroute-virtual-interfaces": "k6t-eth0",
        "traffic.sidecar.istio.io/kubevirtInterfaces": "k6t-eth0",
    }
    assert expected.items() <= annotations.items()

    spec = pod.spec
    assert (spec.restart_policy, spec.hostname, spec.termination_grace_period_seconds) == ("Never", "front", 40 + 30)
    assert (spec.enable_service_links, spec.automount_service_account_token) == (False, False)
    assert [gate.condition_type for gate in spec.readiness_gates] == ["kubevirt.io/virtual-machine-unpaused"]
    machine = vmi["spec"]["domain"]["machine"]["type"]
    assert spec.node_selector == {
        "kubevirt.io/schedulable": "true",
        "kubernetes.io/arch": "amd64",
        f"machine-type.node.kubevirt.io/{machine}": "true",
    }
    security = spec.security_context
    assert (security.run_as_user, security.run_as_group, security.fs_group) == (107, 107, 107)
    assert (security.run_as_non_root, security.seccomp_profile.type) == (True, "RuntimeDefault")
    for container in [*spec.containers, *(spec.init_containers or [])]:
        own = container.security_context
        assert (own.run_as_user, own.run_as_non_root, own.allow_privilege_escalation) == (107, True, False)
        assert own.capabilities.drop == ["ALL"]
        assert own.capabilities.add == (["NET_BIND_SERVICE"] if container.name == "compute" else None)
        assert not own.privileged

    (compute,) = (container for container in spec.containers if container.name == "compute")
    assert [(port.container_port, port.protocol, port.name) for port in compute.ports] == [(22, "TCP", "ssh")]
    asked, limits = compute.resources.requests, compute.resources.limits
    assert (asked["cpu"], asked["ephemeral-storage"]) == ("200m", "50M")
    assert int(asked["memory"]) == (128 << 20) + overhead
    assert limits["devices.kubevirt.io/tun"] == "1"
    # guests of these tests are emulated
    assert "devices.kubevirt.io/kvm" not in limits
    assert {volume.name for volume in spec.volumes if volume.empty_dir} >= {
        "private",
        "public",
        "sockets",
        "libvirt-runtime",
        "ephemeral-disks",
    }
    # and it counts as ready while its guest runs
    ready = {condition.type: condition.status for condition in pod.status.conditions}
    assert (ready["kubevirt.io/virtual-machine-unpaused"], ready["Ready"]) == ("True", "True")
    # the filter of system calls is there in fact
    for pid in cluster.processes_of(pod, "qemu-system"):
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            assert "Seccomp:\t2" in file.read()


def test_working_kvm_is_waited_for_where_emulation_is_not_wanted(cluster: Deployed, namespace: str) -> None:
    def emulate(value: bool | None) -> None:
        change = {"spec": {"configuration": {"developerConfiguration": {"useEmulation": value}}}}
        cluster.custom.patch_namespaced_custom_object("kubevirt.io", "v1", "kubevirt", "kubevirts", "kubevirt", change)

    nodes = cluster.core.list_node().items
    if any(node.status.allocatable.get("devices.kubevirt.io/kvm", "0") != "0" for node in nodes):
        pytest.skip("KVM works here: a machine would just run")
    emulate(False)
    try:
        vm = cluster.virtual_machine("web")
        vm["spec"]["template"]["spec"]["domain"]["cpu"] = {"model": "Haswell"}
        cluster.create(namespace, vm)
        cluster.wait_status(namespace, "web", "ErrorUnschedulable")
        pod = cluster.launcher(namespace, "web")
        assert pod.spec.node_selector["cpu-model.node.kubevirt.io/Haswell"] == "true"
        (compute,) = (container for container in pod.spec.containers if container.name == "compute")
        assert compute.resources.limits["devices.kubevirt.io/kvm"] == "1"
    finally:
        emulate(True)
