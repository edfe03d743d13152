# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The life of a virtual machine, seen from the API and from inside the guest."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from kubernetes.client.exceptions import ApiException

from engine import Engine, Object, condition


@pytest.mark.parametrize("binding", ["masquerade", "bridge"])
def test_a_declared_vm_answers_to_ssh(cluster: Engine, namespace: str, binding: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", binding=binding, labels={"app": "web"}))
    vmi = cluster.wait_running(namespace, "web")
    interface = vmi["status"]["interfaces"][0]
    pod = cluster.core.list_namespaced_pod(namespace, label_selector="kubevirt.io=virt-launcher").items[0]

    assert cluster.ssh(interface["ipAddress"], "hostname") == "web"
    address, mac = cluster.ssh(
        interface["ipAddress"], "ip -4 -o addr show eth0 | awk '{print $4}'; cat /sys/class/net/eth0/address"
    ).split()
    assert mac == interface["mac"]
    assert interface["ipAddress"] == pod.status.pod_ip
    assert address.split("/")[0] == ("10.0.2.2" if binding == "masquerade" else pod.status.pod_ip)

    vm = cluster.get(namespace, "virtualmachines", "web")
    assert vm is not None
    assert condition(vm, "Ready")["status"] == "True"
    assert vm["status"]["printableStatus"] == "Running"
    assert vm["status"]["created"] is vm["status"]["ready"] is True
    assert vmi["metadata"]["ownerReferences"][0]["uid"] == vm["metadata"]["uid"]
    assert pod.metadata.owner_references[0].uid == vmi["metadata"]["uid"]
    assert pod.metadata.labels["app"] == "web"
    phases = [t["phase"] for t in vmi["status"]["phaseTransitionTimestamps"]]
    assert phases == ["Pending", "Scheduling", "Scheduled", "Running"]


def test_the_guest_reaches_another_guest(cluster: Engine, namespace: str) -> None:
    for name, binding in (("left", "masquerade"), ("right", "bridge")):
        cluster.create(namespace, cluster.virtual_machine(name, binding=binding))
    left, right = (
        cluster.wait_running(namespace, n)["status"]["interfaces"][0]["ipAddress"] for n in ("left", "right")
    )
    cluster.ssh(right, "true")
    assert "SSH-2.0" in cluster.ssh(left, f"nc {right} 22 </dev/null | head -c 20")


def test_guest_shutdown_under_always_starts_a_new_instance(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    first = cluster.wait_running(namespace, "web")
    cluster.power_off(first["status"]["interfaces"][0]["ipAddress"])
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"])
    assert cluster.ssh(second["status"]["interfaces"][0]["ipAddress"], "hostname") == "web"


def test_guest_shutdown_under_rerun_on_failure_is_final_until_started(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("job", run_strategy="RerunOnFailure"))
    first = cluster.wait_running(namespace, "job")
    cluster.power_off(first["status"]["interfaces"][0]["ipAddress"])
    cluster.wait(
        namespace,
        "virtualmachineinstances",
        "job",
        lambda o: o and o["status"]["phase"] == "Succeeded",
        timeout=30,
        what="phase Succeeded",
    )
    cluster.wait_status(namespace, "job", "Stopped")
    cluster.subresource(namespace, "job", "start")
    cluster.wait_running(namespace, "job", not_uid=first["metadata"]["uid"])


def test_stop_start_restart_and_delete(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    first = cluster.wait_running(namespace, "web")
    cluster.ssh(first["status"]["interfaces"][0]["ipAddress"], "true")

    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web")
    assert cluster.get(namespace, "virtualmachineinstances", "web") is None
    assert not cluster.core.list_namespaced_pod(namespace).items
    with pytest.raises(ApiException) as refused:
        cluster.subresource(namespace, "web", "stop")
    assert refused.value.status == 409

    cluster.subresource(namespace, "web", "start")
    second = cluster.wait_running(namespace, "web")
    cluster.subresource(namespace, "web", "restart")
    vm = cluster.get(namespace, "virtualmachines", "web")
    assert vm is not None
    assert condition(vm, "Ready")["status"] == "False", "who waits for it now means the next instance"
    third = cluster.wait_running(namespace, "web", not_uid=second["metadata"]["uid"])
    assert cluster.ssh(third["status"]["interfaces"][0]["ipAddress"], "hostname") == "web"

    cluster.delete(namespace, "web")
    cluster.wait_gone(namespace, "web")
    cluster.wait_gone(namespace, "web", "virtualmachineinstances")


def test_acpi_shutdown_is_graceful_and_ends_with_the_grace_period(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("polite", grace_period=60))
    cluster.create(namespace, cluster.virtual_machine("deaf", grace_period=3))
    polite, deaf = (cluster.wait_running(namespace, n) for n in ("polite", "deaf"))
    cluster.ssh(polite["status"]["interfaces"][0]["ipAddress"], "true")
    # a guest without a listener on its power button never shuts down by itself
    cluster.ssh(deaf["status"]["interfaces"][0]["ipAddress"], "rmmod button; rmmod evdev; true")
    for name in ("polite", "deaf"):
        cluster.subresource(namespace, name, "stop")
    for plural in ("virtualmachines", "virtualmachineinstances"):
        cluster.wait(
            namespace,
            plural,
            "deaf",
            lambda o: o and condition(o, "Ready").get("reason") == "PodTerminating",
            timeout=60,
            what="not ready while it shuts down",
        )
    cluster.wait_stopped(namespace, "polite", timeout=45)
    cluster.wait_stopped(namespace, "deaf", timeout=60)


def test_a_paused_guest_is_switched_off_at_once(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", run_strategy="Halted", grace_period=600))
    cluster.wait_stopped(namespace, "web")
    cluster.subresource(namespace, "web", "start", {"paused": True})
    cluster.wait_status(namespace, "web", "Paused")
    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web", timeout=60)


@pytest.mark.parametrize(("strategy", "runs"), [("Halted", False), ("Manual", False), ("Once", True)])
def test_run_strategies(cluster: Engine, namespace: str, strategy: str, runs: bool) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", run_strategy=strategy))
    if runs:
        cluster.wait_running(namespace, "web")
        return
    cluster.wait_stopped(namespace, "web")
    assert cluster.get(namespace, "virtualmachineinstances", "web") is None
    cluster.subresource(namespace, "web", "start")
    cluster.wait_running(namespace, "web")
    cluster.subresource(namespace, "web", "stop")
    cluster.wait_stopped(namespace, "web")


def test_deleting_the_instance_of_a_running_vm_starts_another(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    first = cluster.wait_running(namespace, "web")
    cluster.delete(namespace, "web", "virtualmachineinstances")
    cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"])


def test_orphan_deletion_leaves_the_instance(cluster: Engine, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    vmi = cluster.wait_running(namespace, "web")
    cluster.delete(namespace, "web", propagation_policy="Orphan")
    cluster.wait_gone(namespace, "web")
    left = cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda o: o and not o["metadata"].get("ownerReferences"),
        timeout=60,
        what="orphaned VMI",
    )
    assert left is not None
    assert left["metadata"]["uid"] == vmi["metadata"]["uid"]

    # a halted VM of that name doesn't adopt it, as that would shut it down; one that runs does
    vm = cluster.virtual_machine("web", run_strategy="Halted")
    vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = "129Mi"
    cluster.create(namespace, vm)

    def wait_for(kind: str) -> Object:
        found = cluster.wait(
            namespace, "virtualmachines", "web", lambda o: o and condition(o, kind), timeout=60, what=kind
        )
        assert found is not None
        return found

    assert condition(wait_for("Failure"), "Failure")["reason"] == "NotAdopted"
    cluster.subresource(namespace, "web", "start")
    assert condition(wait_for("RestartRequired"), "Ready")["status"] == "True"
    adopted = cluster.get(namespace, "virtualmachineinstances", "web")
    assert adopted is not None
    assert adopted["metadata"]["uid"] == vmi["metadata"]["uid"]
    assert "deletionTimestamp" not in adopted["metadata"]
    cluster.delete(namespace, "web")
    cluster.wait_gone(namespace, "web")
    cluster.wait_gone(namespace, "web", "virtualmachineinstances")


def test_cloud_init_data_from_secrets(cluster: Engine, namespace: str) -> None:
    seed = f"#cloud-config\nssh_authorized_keys:\n  - {cluster.public_key}\n"
    cluster.core.create_namespaced_secret(namespace, {"metadata": {"name": "seed"}, "stringData": {"userdata": seed}})
    vm = cluster.virtual_machine("web")
    vm["spec"]["template"]["spec"]["volumes"][1]["cloudInitNoCloud"] = {"secretRef": {"name": "seed"}}
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "web")
    assert cluster.ssh(vmi["status"]["interfaces"][0]["ipAddress"], "hostname") == "web"


def test_a_pod_shows_nothing_of_its_guest_s_secrets(cluster: Engine, namespace: str) -> None:
    """Not to those who may read Pods, and not in the list of processes. Nor does it matter how large the VMI is."""
    secret = "only-the-guest-knows"
    vm = cluster.virtual_machine("web", user_data=f"# {secret}\n")
    seed = vm["spec"]["template"]["spec"]["volumes"][1]["cloudInitNoCloud"]["userDataBase64"]
    # an argument or variable may have 128 KiB, annotations 256
    vm["spec"]["template"]["metadata"]["annotations"] = {"note": "x" * 250_000}
    cluster.create(namespace, vm)
    address = cluster.wait_running(namespace, "web")["status"]["interfaces"][0]["ipAddress"]
    assert cluster.ssh(address, "hostname") == "web"
    pod = cluster.launcher(namespace, "web")
    shown = json.dumps(cluster.core.api_client.sanitize_for_serialization(pod))
    shown += "".join(cluster.events(namespace))
    for container in pod.spec.containers:
        shown += cluster.core.read_namespaced_pod_log(pod.metadata.name, namespace, container=container.name)
    processes = cluster.pod_processes(namespace, "web", "")
    assert processes
    for pid in processes:
        for name in ("environ", "cmdline"):
            shown += Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    for word in (secret, seed):
        assert word not in shown


def test_empty_disk_and_persistent_volume(cluster: Engine, namespace: str) -> None:
    cluster.claim(namespace, "data", "64Mi")
    vm = cluster.virtual_machine("web")
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"] += [
        {"name": "scratch", "disk": {"bus": "virtio"}},
        {"name": "data", "disk": {"bus": "virtio"}},
    ]
    spec["volumes"] += [
        {"name": "scratch", "emptyDisk": {"capacity": "32Mi"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
    ]
    cluster.create(namespace, vm)
    first = cluster.wait_running(namespace, "web")
    address = first["status"]["interfaces"][0]["ipAddress"]
    sizes = cluster.ssh(address, "cat /sys/block/vdc/size /sys/block/vdd/size").split()
    assert int(sizes[0]) * 512 == 32 * 2**20
    assert 57 * 2**20 <= int(sizes[1]) * 512 <= 64 * 2**20
    text = base64.b64encode(b"kept").decode()
    cluster.ssh(address, f"echo {text} | base64 -d > /dev/vdd; echo {text} | base64 -d > /dev/vdc; sync")
    cluster.subresource(namespace, "web", "restart")
    second = cluster.wait_running(namespace, "web", not_uid=first["metadata"]["uid"])
    address = second["status"]["interfaces"][0]["ipAddress"]
    assert cluster.ssh(address, "head -c 4 /dev/vdd") == "kept"
    assert cluster.ssh(address, "head -c 4 /dev/vdc | tr -d '\\0'") == ""


def test_ten_at_once(cluster: Engine, namespace: str) -> None:
    names = [f"vm{n}" for n in range(10)]
    for name in names:
        cluster.create(namespace, cluster.virtual_machine(name))
    addresses = {
        cluster.wait_running(namespace, name, timeout=120)["status"]["interfaces"][0]["ipAddress"] for name in names
    }
    assert len(addresses) == 10
    assert {cluster.ssh(address, "hostname", timeout=180) for address in addresses} == set(names)
