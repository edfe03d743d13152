# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a cluster does to virtual machines, and what their users are told: phase, condition, word, event."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from deployed import NAMESPACE, Deployed
from kubernetes.client.exceptions import ApiException
from kubernetes_cluster import Cluster, Node, wait_for
from test_network import address_of

from engine import Object, condition

HEARTBEAT = "kubevirt.io/heartbeat"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def uid_of(cluster: Deployed, namespace: str, name: str) -> str:
    vmi = cluster.get(namespace, "virtualmachineinstances", name)
    return vmi["metadata"]["uid"] if vmi else ""


def preferring(vm: Object, node: str) -> Object:
    """The VM with a wish to run on a node, which it leaves when it has to."""
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    term = {"weight": 100, "preference": {"matchExpressions": [expression]}}
    vm["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}
    }
    return vm


# The node


def is_ready(cluster: Deployed, node: str) -> bool:
    found = cluster.core.read_node(node).status.conditions
    return any(c.type == "Ready" and c.status == "True" for c in found)


@contextlib.contextmanager
def silent(cluster: Deployed, machines: Cluster, node: Node) -> Iterator[None]:
    """Nobody hears of a node any more, as if for long; in the end it is back and takes machines again."""
    machines.unplug(node)
    try:
        wait_for(f"the end of condition Ready of {node.name}", lambda: not is_ready(cluster, node.name), timeout=180)
        yield
    finally:
        machines.plug(node)
        cluster.kubectl("taint", "node", node.name, f"{OUT_OF_SERVICE}-", check=False)
        wait_for(
            f"{node.name} to take virtual machines again",
            lambda: (
                is_ready(cluster, node.name)
                and cluster.core.read_node(node.name).metadata.labels["kubevirt.io/schedulable"] == "true"
            ),
            timeout=300,
        )
        cluster.wait_back()


@pytest.mark.parametrize("end", ["the node is back", "somebody vouches for its end"])
def test_a_lost_node(cluster: Deployed, machines: Cluster, namespace: str, end: str) -> None:
    # the first one leads the host to Services
    other, lost = machines.nodes
    cluster.spread()
    cluster.create(namespace, preferring(cluster.virtual_machine("web"), lost.name))
    first = cluster.wait_running(namespace, "web")
    assert first["status"]["nodeName"] == lost.name
    uid = first["metadata"]["uid"]
    pod = cluster.launcher(namespace, "web")
    with silent(cluster, machines, lost):
        # a silence shorter than five minutes means nothing
        vmi = cluster.get(namespace, "virtualmachineinstances", "web")
        assert vmi["status"]["phase"] == "Running"
        long_ago = (datetime.now(UTC) - timedelta(minutes=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
        # the controller looks when the last one it saw is old enough; a first one it looks at right away
        for heartbeat in (None, long_ago):
            cluster.core.patch_node(lost.name, {"metadata": {"annotations": {HEARTBEAT: heartbeat}}})
        cluster.wait_phase(namespace, "web", "Failed", reason="NodeUnresponsive", timeout=60)
        assert cluster.core.read_node(lost.name).metadata.labels["kubevirt.io/schedulable"] == "false"
        cluster.wait_event(namespace, "web", ["NodeUnresponsive", f"taint it with {OUT_OF_SERVICE}"], timeout=60)
        vm = cluster.wait_status(namespace, "web", "Stopped")
        assert condition(vm, "Ready")["status"] == "False"
        # the guest runs on where nobody sees it: another one would have the same disks
        assert cluster.processes_of(pod, "qemu-system")
        assert uid_of(cluster, namespace, "web") == uid
        if end == "somebody vouches for its end":
            cluster.kubectl("taint", "node", lost.name, f"{OUT_OF_SERVICE}=off:NoExecute")
            second = cluster.wait_running(namespace, "web", not_uid=uid, timeout=120)
            assert second["status"]["nodeName"] == other.name
    second = cluster.wait_running(namespace, "web", not_uid=uid, timeout=180)
    assert cluster.ssh(address_of(second), "hostname") == "web"
    wait_for("the end of the first guest", lambda: not cluster.processes_of(pod, "qemu-system"), timeout=180)


# The Pod


def test_a_deleted_launcher_pod(cluster: Deployed, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", run_strategy="RerunOnFailure"))
    first = cluster.wait_running(namespace, "web")
    cluster.ssh(address_of(first), "true")
    cluster.core.delete_namespaced_pod(cluster.launcher(namespace, "web").metadata.name, namespace)
    # the guest is asked, and shuts down: that is no failure
    cluster.wait_phase(namespace, "web", "Succeeded", timeout=60)
    cluster.wait_event(namespace, "web", ["LauncherPodDeleted", "asked to shut down", "runStrategy Always"], timeout=30)
    vm = cluster.wait_status(namespace, "web", "Stopped")
    assert condition(vm, "Ready")["status"] == "False"


def test_an_eviction_asks_disruption_budgets(cluster: Deployed, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", labels={"app": "web"}))
    first = cluster.wait_running(namespace, "web")
    boot = cluster.boot_id(address_of(first))
    # kubectl itself makes only those of policy/v1, which came with Kubernetes 1.21
    version = "v1" if cluster.version() >= (1, 21) else "v1beta1"
    budget = {
        "apiVersion": f"policy/{version}",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    where = ("policy", version, namespace, "poddisruptionbudgets")
    cluster.custom.create_namespaced_custom_object(*where, budget)
    pod = cluster.launcher(namespace, "web").metadata.name
    options = ("--force", "--delete-emptydir-data", "--ignore-daemonsets", "--pod-selector=app=web")
    node = first["status"]["nodeName"]
    try:
        said = cluster.kubectl("drain", node, *options, "--timeout=12s", check=False)
        assert "would violate the pod's disruption budget" in said
        assert cluster.boot_id(address_of(first)) == boot
        cluster.custom.delete_namespaced_custom_object(*where, "web")
        cluster.kubectl("drain", node, *options, "--timeout=240s")
    finally:
        cluster.kubectl("uncordon", node)
    cluster.wait_event(namespace, "web", ["LauncherPodDeleted", pod], timeout=30)
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"], timeout=120)
    assert second["status"]["nodeName"] != node


@contextlib.contextmanager
def memory_is_short(node: Node) -> Iterator[None]:
    """A node whose kubelet wants more free memory than there is.

    By a soft threshold: a hard one counts as used, and the kubelet that starts again would refuse Pods for it.
    """
    file = node.machine.etc / "kubernetes" / "kubelet.yaml"
    before = file.read_text()

    def restart(text: str) -> None:
        file.write_text(text)
        node.machine.kill("kubelet")
        node.agents.start_kubelet()

    settings = yaml.safe_load(before)
    signal = "memory.available"
    restart(yaml.safe_dump({**settings, "evictionSoft": {signal: "99%"}, "evictionSoftGracePeriod": {signal: "1s"}}))
    try:
        yield
    finally:
        restart(before)


def test_a_node_short_of_memory_evicts(cluster: Deployed, machines: Cluster, namespace: str) -> None:
    node = machines.nodes[1]
    vm = preferring(cluster.virtual_machine("web", run_strategy="RerunOnFailure"), node.name)
    # it uses more than it asked for, which makes it the first to go
    vm["spec"]["template"]["spec"]["domain"]["resources"] = {"requests": {"memory": "1M"}}
    cluster.create(namespace, vm)
    first = cluster.wait_running(namespace, "web")
    assert first["status"]["nodeName"] == node.name
    cluster.ssh(address_of(first), "true")
    with memory_is_short(node):
        cluster.wait_event(
            namespace, "web", ["LauncherEvicted", "low on resource: memory", "free resources"], timeout=120
        )
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"], timeout=180)
    assert cluster.ssh(address_of(second), "hostname") == "web"
    for name in ("virt-api", "virt-controller", "virt-handler"):
        cluster.wait_component(name)


def test_a_pod_beyond_its_ephemeral_storage_is_evicted(cluster: Deployed, namespace: str) -> None:
    limit = {"type": "Container", "default": {"ephemeral-storage": "60M"}}
    cluster.core.create_namespaced_limit_range(namespace, {"metadata": {"name": "few"}, "spec": {"limits": [limit]}})
    vm = cluster.virtual_machine("web", run_strategy="Once")
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": "scratch", "disk": {"bus": "virtio"}})
    spec["volumes"].append({"name": "scratch", "emptyDisk": {"capacity": "300Mi"}})
    cluster.create(namespace, vm)
    # the containers of a Pod share what they have together
    # the connection doesn't see its end
    write = "(yes | head -c 250000000 > /dev/vdc; sync) </dev/null >/dev/null 2>&1 &"
    cluster.ssh(address_of(cluster.wait_running(namespace, "web")), write)
    vmi = cluster.wait_phase(namespace, "web", "Failed", timeout=180)
    assert condition(vmi, "Ready")["status"] == "False"
    cluster.wait_event(namespace, "web", ["LauncherEvicted", "ephemeral"], timeout=60)
    cluster.wait_status(namespace, "web", "Stopped")


#: Processes that each take less memory than QEMU, and together more than the container may have.
HOG = """
import os, time
for number in range(40):
    if os.fork() == 0:
        taken = bytearray(os.urandom(1 << 20)) * 16
        time.sleep(600)
        os._exit(0)
    time.sleep(0.1)
"""


def test_a_pod_at_its_memory_limit(cluster: Deployed, namespace: str) -> None:
    vm = cluster.virtual_machine("web", run_strategy="Manual", memory="128Mi")
    vm["spec"]["template"]["spec"]["domain"]["resources"] = {"limits": {"memory": "128Mi"}}
    cluster.create(namespace, vm)
    cluster.subresource(namespace, "web", "start")
    cluster.ssh(address_of(cluster.wait_running(namespace, "web")), "true")
    pod = cluster.launcher(namespace, "web")
    (compute,) = (c for c in pod.spec.containers if c.name == "compute")
    overhead = int(pod.metadata.annotations["kubevirt.io/memory-overhead-bytes"])
    assert int(compute.resources.limits["memory"]) == (128 << 20) + overhead
    with ThreadPoolExecutor(1) as pool:
        command = ("exec", pod.metadata.name, "-c", "compute", "--", "python3", "-c", HOG)
        pool.submit(cluster.kubectl, "-n", namespace, *command, check=False)
        vmi = cluster.wait_phase(namespace, "web", "Failed", timeout=120)
        assert condition(vmi, "Ready")["status"] == "False"
        cluster.wait_event(namespace, "web", ["OOMKilled", "resources.limits.memory"], timeout=60)
        # and it is left so
        vm = cluster.wait_status(namespace, "web", "Stopped")
        assert condition(vm, "Ready")["status"] == "False"


# The API


def test_the_api_server_is_away_for_more_than_a_minute(cluster: Deployed, machines: Cluster, namespace: str) -> None:
    for name, strategy in (("stays", "Always"), ("ends", "RerunOnFailure")):
        cluster.create(namespace, cluster.virtual_machine(name, run_strategy=strategy))
    stays, ends = (address_of(cluster.wait_running(namespace, name)) for name in ("stays", "ends"))
    boot = cluster.boot_id(stays)
    cluster.ssh(ends, "true")
    with ThreadPoolExecutor(1) as pool:
        away = pool.submit(machines.interrupt_api_server, seconds=75)
        cluster.power_off(ends)
        assert cluster.boot_id(stays) == boot
        assert not away.done()
        away.result()
    # what happened meanwhile is seen, and what is asked for now is done
    cluster.wait_phase(namespace, "ends", "Succeeded", timeout=120)
    cluster.wait_status(namespace, "ends", "Stopped")
    assert cluster.boot_id(stays) == boot
    cluster.wait_status(namespace, "stays", "Running")
    # Kubernetes calls nodes and their Pods not ready that it hasn't heard of, until it hears of them again
    cluster.wait(
        namespace,
        "virtualmachines",
        "stays",
        lambda vm: vm and condition(vm, "Ready").get("status") == "True",
        timeout=60,
        what="Ready",
    )
    cluster.wait_back()
    cluster.subresource(namespace, "ends", "start")
    cluster.wait_running(namespace, "ends")
    cluster.wait_available()


def test_webhooks_are_down(cluster: Deployed, namespace: str) -> None:
    for name, strategy in (("stays", "Always"), ("ends", "RerunOnFailure")):
        cluster.create(namespace, cluster.virtual_machine(name, run_strategy=strategy))
    stays, ends = (address_of(cluster.wait_running(namespace, name)) for name in ("stays", "ends"))
    boot = cluster.boot_id(stays)
    cluster.ssh(ends, "true")

    def kubevirt() -> Object:
        return cluster.custom.get_namespaced_custom_object("kubevirt.io", "v1", NAMESPACE, "kubevirts", "kubevirt")

    with cluster.without_virt_api():
        wait_for(
            "condition Available to say what is missing",
            lambda: condition(kubevirt(), "Available")["status"] == "False",
            timeout=120,
        )
        assert "virt-api" in condition(kubevirt(), "Degraded")["message"]
        cluster.wait_event(NAMESPACE, "kubevirt", ["ComponentsNotReady", "virt-api", "component's Pods"], timeout=30)
        with pytest.raises(ApiException) as refused:
            cluster.create(namespace, cluster.virtual_machine("new"))
        assert refused.value.status == 500
        assert "failed calling webhook" in refused.value.body
        assert "kubevirt.io" in refused.value.body
        cluster.power_off(ends)
        assert cluster.boot_id(stays) == boot
    cluster.wait_available()
    cluster.wait_phase(namespace, "ends", "Succeeded", timeout=120)
    cluster.wait_status(namespace, "ends", "Stopped")
    cluster.create(namespace, cluster.virtual_machine("new"))
    cluster.wait_running(namespace, "new")
    assert cluster.boot_id(stays) == boot


def test_a_quota_is_exceeded(cluster: Deployed, namespace: str) -> None:
    def quota(memory: str) -> Object:
        return {"spec": {"hard": {"requests.memory": memory, "limits.memory": "4Gi", "limits.cpu": "8"}}}

    cluster.core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "small"}, **quota("64Mi")})
    cluster.create(namespace, cluster.virtual_machine("web"))
    vmi = cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda o: "exceeded quota: small" in condition(o or {}, "Synchronized").get("message", ""),
        timeout=60,
        what="condition Synchronized about the quota",
    )
    assert vmi["status"]["phase"] == "Pending"
    assert condition(vmi, "Synchronized")["reason"] == "FailedCreate"
    cluster.wait_event(namespace, "web", ["FailedCreate", "exceeded quota: small"], timeout=30)
    vm = cluster.wait_status(namespace, "web", "Starting")
    assert "exceeded quota: small" in condition(vm, "Synchronized")["message"]
    cluster.core.patch_namespaced_resource_quota("small", namespace, quota("1Gi"))
    vmi = cluster.wait_running(namespace, "web")
    assert not condition(vmi, "Synchronized")
    # the quota demands limits, which nobody gave
    for container in cluster.launcher(namespace, "web").spec.containers:
        assert {"cpu", "memory"} <= container.resources.limits.keys()


# Images, claims, nodes that fit


def test_an_image_that_is_not_there_as_yet(cluster: Deployed, namespace: str) -> None:
    registry = cluster.kubernetes.registry
    image = f"{registry.address}/late:{namespace}"
    cluster.create(namespace, cluster.virtual_machine("web", image=image))
    words = ("ErrImagePull", "ImagePullBackOff")
    vm = cluster.wait(
        namespace,
        "virtualmachines",
        "web",
        lambda o: o and o.get("status", {}).get("printableStatus") in words,
        timeout=60,
        what=f"printableStatus {words}",
    )
    told = condition(vm, "Synchronized")
    assert (told["status"], told["reason"] in words) == ("False", True)
    vmi = cluster.get(namespace, "virtualmachineinstances", "web")
    assert vmi["status"]["phase"] == "Scheduling"
    cluster.wait_event(namespace, "web", ["ErrImagePull", image], timeout=60)
    registry.push(f"oci-archive:{cluster.archive}", f"late:{namespace}")
    # the kubelet's pauses between two tries grow to five minutes
    cluster.wait_running(namespace, "web", timeout=120)


def test_a_claim_that_is_not_there_as_yet(cluster: Deployed, namespace: str) -> None:
    vm = cluster.virtual_machine("web")
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": "data", "disk": {"bus": "virtio"}})
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    cluster.create(namespace, vm)
    vm = cluster.wait_status(namespace, "web", "ErrorPvcNotFound")
    assert condition(vm, "Synchronized")["reason"] == "FailedPvcNotFound"
    cluster.wait_event(namespace, "web", ["FailedPvcNotFound", f"PVC {namespace}/data does not exist"], timeout=30)
    cluster.claim(namespace, "data", "64Mi")
    cluster.wait_running(namespace, "web")


def test_no_node_fits(cluster: Deployed, namespace: str) -> None:
    vm = cluster.virtual_machine("web")
    vm["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "nowhere"}
    cluster.create(namespace, vm)
    vm = cluster.wait_status(namespace, "web", "ErrorUnschedulable")
    told = condition(vm, "PodScheduled")
    assert (told["status"], told["reason"]) == ("False", "Unschedulable")
    cluster.wait_event(namespace, "web", ["FailedScheduling", "nodes are available"], timeout=30)
