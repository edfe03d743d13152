# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where nodes have images from: a registry that wants credentials, or no registry at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deployed import COMPONENTS, NAMESPACE, Deployed
from kubernetes_cluster import Cluster, Registry, wait_for
from kubernetes_cluster.machine import PATH

from playbooks import recap

#: Stands in for ssh: Ansible's connection plugin gives it options, the host's name and a command for its shell.
SSH = """#!/bin/sh
while [ $# -gt 2 ]; do shift; done
exec env -i HOME=/root PATH={path} nsenter --target "$(cat {machines}/"$1"/pid)" --all --wd=/root sh -c "$2"
"""


def wait_images(cluster: Deployed, prefix: str) -> None:
    """Until all components run from images of that place."""

    def images() -> set[str]:
        pods = [pod for _kind, name in COMPONENTS for pod in cluster.component_pods(name)]
        return {container.image for pod in pods for container in pod.spec.containers}

    wait_for(f"components from {prefix} only", lambda: all(i.startswith(prefix) for i in images()), timeout=180)
    for _kind, name in COMPONENTS:
        cluster.wait_component(name)


@pytest.fixture
def private(cluster: Deployed) -> Registry:
    """The registry, where it has a second face that wants credentials."""
    if not cluster.kubernetes.registry.private:
        pytest.skip("needs a registry with credentials, which the tests' own cluster has")
    return cluster.kubernetes.registry


@pytest.mark.usefixtures("original")
def test_components_from_a_registry_with_credentials(
    cluster: Deployed, private: Registry, namespace: str, tmp_path: Path
) -> None:
    credentials = tmp_path / "auth.json"
    credentials.write_text(private.pull_secret)
    # another repository than that of all other tests: no node has these images
    place = f"{private.private}/closed"
    output = cluster.playbook(
        "deploy",
        "--diff",
        kubevirt_registry=place,
        kubevirt_registry_authfile=str(credentials),
        kubevirt_image_pull_authfile=str(credentials),
    )
    wait_images(cluster, place)
    auth = json.loads(private.pull_secret)["auths"][private.private]["auth"]
    assert auth not in output
    pods = [pod for _kind, name in COMPONENTS for pod in cluster.component_pods(name)]
    assert all([s.name for s in pod.spec.image_pull_secrets] == ["kubevirt-image-pull"] for pod in pods)
    # launchers, in whose namespaces there is no such Secret, have its name and do without
    kubevirt = cluster.custom.get_namespaced_custom_object("kubevirt.io", "v1", NAMESPACE, "kubevirts", "kubevirt")
    assert kubevirt["spec"]["imagePullSecrets"] == [{"name": "kubevirt-image-pull"}]
    cluster.create(namespace, cluster.virtual_machine("web"))
    cluster.wait_running(namespace, "web")
    assert [s.name for s in cluster.launcher(namespace, "web").spec.image_pull_secrets] == ["kubevirt-image-pull"]


def test_a_container_disk_from_a_registry_with_credentials(
    cluster: Deployed, private: Registry, namespace: str
) -> None:
    image = cluster.image.replace(private.address, private.private)
    secret = {
        "metadata": {"name": "registry"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": private.pull_secret},
    }
    cluster.core.create_namespaced_secret(namespace, secret)
    for name, disk in (("without", {}), ("with", {"imagePullSecret": "registry"})):
        machine = cluster.virtual_machine(name)
        machine["spec"]["template"]["spec"]["volumes"][0]["containerDisk"] = {
            "image": image,
            "imagePullPolicy": "Always",
            **disk,
        }
        cluster.create(namespace, machine)
    cluster.wait_running(namespace, "with")

    def refused() -> bool:
        status = (cluster.get(namespace, "virtualmachines", "without") or {}).get("status", {})
        return status.get("printableStatus") in ("ErrImagePull", "ImagePullBackOff")

    wait_for("ErrImagePull of the machine without credentials", refused, timeout=120)


@pytest.mark.usefixtures("original")
def test_images_are_imported_over_ssh_where_there_is_no_registry(
    cluster: Deployed, machines: Cluster, namespace: str, tmp_path: Path
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH.format(path=PATH, machines=machines.nodes[0].machine.directory.parent))
    ssh.chmod(0o755)
    variables = {
        "ansible_ssh_executable": str(ssh),
        "ansible_ssh_transfer_method": "piped",
        # /root of these nodes is small
        "ansible_remote_tmp": "/tmp/ansible",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    inventory = tmp_path / "inventory.json"
    hosts = {node.name: variables for node in machines.nodes}
    inventory.write_text(json.dumps({"nodes": {"hosts": hosts}}))
    nodes = {"kubevirt_registry": "", "kubevirt_image_nodes": sorted(hosts)}
    cluster.playbook("deploy", "-i", str(inventory), **nodes)
    wait_images(cluster, "localhost/turtles/")
    daemonset = cluster.apps.read_namespaced_daemon_set("virt-handler", NAMESPACE)
    assert daemonset.status.desired_number_scheduled == len(hosts)
    # the guest image comes the same way
    images = ("ctr", "--namespace=k8s.io", "images", "list", "--quiet")
    listed = machines.nodes[0].machine.run(*images)
    (guest,) = [name for name in listed.split() if name.startswith("localhost/turtles/tiny:")]
    # and no kubelet removes what nobody could bring back
    for node in machines.nodes:
        pinned = node.machine.run(*images, 'labels."io.cri-containerd.pinned"==pinned').split()
        names = {name.partition(":")[0].removeprefix("localhost/turtles/") for name in pinned}
        assert names >= {"turtles-engine", "turtles-launcher", "tiny"}, pinned
    cluster.create(namespace, cluster.virtual_machine("web", image=guest))
    vmi = cluster.wait_running(namespace, "web")
    assert cluster.ssh(vmi["status"]["interfaces"][0]["ipAddress"], "hostname") == "web"
    output = cluster.playbook("deploy", "-i", str(inventory), **nodes)
    assert recap(output)["changed"] == 0, output
    for node in machines.nodes:
        assert "turtles-images-" not in node.machine.run("ls", "/tmp")
