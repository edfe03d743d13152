# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The same virtual machine through kubectl, the modules and the inventory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from playbooks import playbook, recap

Ansible = Callable[..., dict[str, Any]]

EXAMPLE = Path(__file__).parents[3] / "docs/examples/testvm.yaml"


@pytest.fixture
def example(cluster: Engine) -> str:
    """The example manifest, with this engine's guest image."""
    text = EXAMPLE.read_text()
    assert "oci-archive:/var/lib/turtles/images/tiny.tar" in text
    return text.replace("oci-archive:/var/lib/turtles/images/tiny.tar", cluster.image)


def test_the_first_manifest_of_kubevirts_users_with_kubectl(
    cluster: Engine, example: str, kubectl: Callable[..., str]
) -> None:
    in_time = f"--timeout={cluster.seconds(60)}s"
    kubectl("apply", "-f", "-", stdin=example)
    assert "Stopped" in kubectl("get", "vms")
    kubectl("patch", "vm", "testvm", "--type", "merge", "-p", '{"spec":{"running":true}}')
    kubectl("wait", "vm/testvm", "--for=condition=Ready", in_time)
    header, row = kubectl("get", "vmi").splitlines()
    assert header.split() == ["NAME", "AGE", "PHASE", "IP", "NODENAME", "READY"]
    assert row.split()[0] == "testvm"
    assert row.split()[2] == "Running"
    assert kubectl("get", "vm", "testvm").splitlines()[0].split() == ["NAME", "AGE", "STATUS", "READY"]
    assert "testvm" in kubectl("get", "vmis,pods,vms")
    assert "SuccessfulCreate" in kubectl("describe", "vm", "testvm")
    kubectl("delete", "vm", "testvm", in_time)


def test_the_first_manifest_of_kubevirts_users_with_the_module(
    cluster: Engine, namespace: str, example: str, ansible: Ansible
) -> None:
    common = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace}
    manifest = {**common, "resource_definition": example}
    created = ansible("turtles.kubevirt.vm", {**manifest, "state": "present"})
    assert created["changed"]
    assert not ansible("turtles.kubevirt.vm", {**manifest, "state": "present"})["changed"]
    running = {"name": "testvm", "state": "running", "wait_timeout": cluster.seconds(60)}
    started = ansible("turtles.kubevirt.vm", {**common, **running})
    assert started["changed"]
    vmis = ansible("turtles.kubevirt.vmi_info", {**common, "name": "testvm"})["resources"]
    assert [vmi["status"]["phase"] for vmi in vmis] == ["Running"]


def test_states_are_idempotent_and_predicted_by_check_mode(cluster: Engine, namespace: str, ansible: Ansible) -> None:
    vm = {
        "kubeconfig": str(cluster.kubeconfig),
        "namespace": namespace,
        "name": "web",
        "spec": cluster.virtual_machine("web")["spec"],
        "wait_timeout": cluster.seconds(60),
    }
    for state in ("running", "stopped", "running", "absent"):
        predicted = ansible("turtles.kubevirt.vm", {**vm, "state": state}, "--check")
        assert predicted["changed"], state
        assert ansible("turtles.kubevirt.vm", {**vm, "state": state})["changed"], state
        assert not ansible("turtles.kubevirt.vm", {**vm, "state": state}, "--check")["changed"], state
        assert not ansible("turtles.kubevirt.vm", {**vm, "state": state})["changed"], state
    assert cluster.get(namespace, "virtualmachines", "web") is None


def test_a_loop_declares_a_fleet(cluster: Engine, namespace: str, tmp_path: Path) -> None:
    task = {
        "name": "Declare",
        "turtles.kubevirt.vm": {
            "kubeconfig": str(cluster.kubeconfig),
            "namespace": namespace,
            "name": "web{{ item }}",
            "state": "present",
            "run_strategy": "Halted",
            "memory": "128Mi",
            "image": cluster.image,
        },
        "loop": list(range(12)),
    }
    play = [{"name": "Fleet", "hosts": "localhost", "gather_facts": False, "tasks": [task]}]
    (tmp_path / "fleet.yml").write_text(json.dumps(play))
    for changed in (1, 0):
        assert recap(playbook("fleet.yml", folder=tmp_path).stdout)["changed"] == changed
    vms = cluster.custom.list_namespaced_custom_object("kubevirt.io", "v1", namespace, "virtualmachines")["items"]
    assert {vm["metadata"]["name"] for vm in vms} == {f"web{n}" for n in range(12)}


def test_a_replica_set_keeps_as_many_as_wanted(
    cluster: Engine, namespace: str, ansible: Ansible, kubectl: Callable[..., str]
) -> None:
    in_time = f"--timeout={cluster.seconds(60)}s"
    common = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "web"}
    machine = {"labels": {"app": "web"}, "image": cluster.image, "memory": "128Mi", "termination_grace_period": 0}
    declared = {**common, **machine, "replicas": 2, "wait_timeout": cluster.seconds(60)}
    assert ansible("turtles.kubevirt.replicaset", declared)["result"]["status"]["readyReplicas"] == 2
    assert not ansible("turtles.kubevirt.replicaset", declared)["changed"]
    header, row = kubectl("get", "vmirs").splitlines()
    assert header.split() == ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]
    assert row.split()[:4] == ["web", "2", "2", "2"]

    before = kubectl("get", "vmis", "-l", "app=web", "-o", "name").split()
    kubectl("delete", before[0], in_time)
    kubectl("wait", "vmirs/web", "--for=jsonpath={.status.readyReplicas}=2", in_time)
    after = kubectl("get", "vmis", "-l", "app=web", "-o", "name").split()
    assert len(after) == 2
    assert set(before) & set(after) == {before[1]}

    kubectl("scale", "vmirs/web", "--replicas=1")
    kubectl("wait", "vmirs/web", "--for=jsonpath={.status.replicas}=1", in_time)
    assert ansible("turtles.kubevirt.replicaset", {**common, "state": "absent"})["changed"]
    kubectl("wait", "vmis", "-l", "app=web", "--for=delete", in_time)


def test_a_pool_keeps_named_machines_and_updates_them_one_after_another(
    cluster: Engine, namespace: str, ansible: Ansible, kubectl: Callable[..., str]
) -> None:
    in_time = f"--timeout={cluster.seconds(90)}s"
    common = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "desk"}
    machine = {"labels": {"app": "desk"}, "image": cluster.image, "memory": "128Mi", "termination_grace_period": 0}
    order = {"selectionPolicy": {"sortPolicy": "DescendingOrder"}}
    strategies = {"max_unavailable": 1, "scale_in_strategy": {"proactive": order}}
    declared = {**common, **machine, **strategies, "replicas": 2, "wait_timeout": cluster.seconds(90)}
    assert ansible("turtles.kubevirt.pool", declared)["result"]["status"]["readyReplicas"] == 2
    assert not ansible("turtles.kubevirt.pool", declared)["changed"]
    assert not ansible("turtles.kubevirt.pool", declared, "--check")["changed"]
    header, row = kubectl("get", "vmpool").splitlines()
    assert header.split() == ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]
    assert row.split()[:4] == ["desk", "2", "2", "2"]
    assert kubectl("get", "vms", "-o", "name").split() == [f"virtualmachine.kubevirt.io/desk-{n}" for n in (0, 1)]

    # What serves in one version serves in the other
    kubectl("get", "virtualmachinepools.v1alpha1.pool.kubevirt.io", "desk")
    kubectl("scale", "vmpool/desk", "--replicas=1")
    kubectl("wait", "vmpool/desk", "--for=jsonpath={.status.replicas}=1", in_time)
    assert kubectl("get", "vms", "-o", "name").split() == ["virtualmachine.kubevirt.io/desk-0"]

    # Its name is used again
    before = kubectl("get", "vmi", "desk-0", "-o", "jsonpath={.metadata.uid}")
    kubectl("scale", "vmpool/desk", "--replicas=2")
    kubectl("wait", "vmpool/desk", "--for=jsonpath={.status.readyReplicas}=2", in_time)
    assert ansible("turtles.kubevirt.pool", {**common, "memory": "136Mi", "wait": False})["changed"]
    for name in ("desk-0", "desk-1"):
        # Between two instances there is none, which kubectl wait takes for the end.
        cluster.wait(
            namespace,
            "virtualmachineinstances",
            name,
            lambda vmi: vmi and vmi["spec"]["domain"]["memory"]["guest"] == "136Mi",
            timeout=90,
            what="instance with more memory",
        )
    kubectl("wait", "vmpool/desk", "--for=jsonpath={.status.readyReplicas}=2", in_time)
    assert kubectl("get", "vmi", "desk-0", "-o", "jsonpath={.metadata.uid}") != before
    assert "SuccessfulUpdate" in kubectl("describe", "vmpool", "desk")

    found = ansible("turtles.kubevirt.pool_info", {**common, "name": "desk"})["resources"]
    assert [pool["spec"]["replicas"] for pool in found] == [2]
    assert ansible("turtles.kubevirt.pool", {**common, "state": "absent"})["changed"]
    kubectl("wait", "vms", "-l", "app=desk", "--for=delete", in_time)


def test_restarted_gives_another_instance(cluster: Engine, namespace: str, ansible: Ansible) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    first = cluster.wait_running(namespace, "web")
    arguments = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "web", "state": "restarted"}
    assert ansible("turtles.kubevirt.vm", {**arguments, "wait_timeout": cluster.seconds(60)})["changed"]
    vmi = cluster.get(namespace, "virtualmachineinstances", "web")
    assert vmi is not None
    assert vmi["metadata"]["uid"] != first["metadata"]["uid"]


def test_the_inventory_lists_machines_and_those_that_run_answer(
    cluster: Engine, namespace: str, tmp_path: Path
) -> None:
    for name in ("web", "db"):
        cluster.create(namespace, cluster.virtual_machine(name, labels={"tier": name}))
    cluster.create(namespace, cluster.virtual_machine("off", run_strategy="Halted"))
    for name in ("web", "db"):
        cluster.wait_running(namespace, name)
    options = {
        "plugin": "turtles.kubevirt.kubevirt",
        "kubeconfig": str(cluster.kubeconfig),
        "namespaces": [namespace],
        "include_stopped": True,
        "group_by": ["namespace", "state"],
        "variables": {"memory": "spec.domain.memory.guest", "strategy": "vm.spec.runStrategy"},
        "host_vars": ["vm_printable_status", "vmi_interfaces"],
        "compose": {
            "ansible_user": "'root'",
            "ansible_ssh_private_key_file": f"'{cluster.key}'",
            "ansible_ssh_common_args": "'-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null'",
        },
    }
    source = tmp_path / "inventory.kubevirt.yml"
    source.write_text(json.dumps(options))
    tools = Path(sys.executable).parent
    listed = json.loads(
        subprocess.run(
            [str(tools / "ansible-inventory"), "-i", str(source), "--list"], check=True, capture_output=True, text=True
        ).stdout
    )
    hosts = listed["_meta"]["hostvars"]
    off = hosts.pop(f"{namespace}-off")
    assert (off["state"], off["vm_printable_status"], off["strategy"]) == ("Stopped", "Stopped", "Halted")
    assert "ansible_host" not in off
    assert set(hosts) == {f"{namespace}-web", f"{namespace}-db"}
    assert set(listed["state_running"]["hosts"]) == set(hosts)
    for host in hosts.values():
        assert (host["state"], host["memory"]) == ("Running", "128Mi")
        assert host["ansible_host"] == host["vmi_interfaces"][0]["ipAddress"]
    for vmi in ("web", "db"):
        cluster.ssh(
            next(v["ansible_host"] for h, v in hosts.items() if h.endswith(vmi)), "true"
        )  # booted: from here on one try must do

    def hostname(pattern: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(tools / "ansible"), "-i", str(source), pattern, "-m", "ansible.builtin.raw", "-a", "hostname"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    done = hostname("state_running")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"web", "db"} <= set(done.stdout.split())
    # Through the API, with addresses of no use
    source.write_text(json.dumps({**options, "connection": "turtles.kubevirt.portforward"}))
    done = hostname("state_running", "-e", "ansible_host=192.0.2.1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"web", "db"} <= set(done.stdout.split())
    # By the serial console, where root of this guest has no password; the second session finds nothing of the first
    for _session in range(2):
        done = hostname(f"{namespace}-web", "-e", "ansible_connection=turtles.kubevirt.console")
        assert (done.returncode, done.stdout.split()[-1]) == (0, "web"), done.stdout + done.stderr
    assert cluster.ssh(hosts[f"{namespace}-web"]["ansible_host"], "ls -d /tmp/* || test -e /bin/busybox") == ""
    done = hostname(f"{namespace}-off")
    assert done.returncode != 0
    assert f"{namespace}/off" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
