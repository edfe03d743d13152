# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deploying, upgrading and removing the engine with the playbooks."""

from __future__ import annotations

import pytest
from deployed import COMPONENTS, NAMESPACE, Deployed
from kubernetes import client
from kubernetes_cluster import wait_for
from test_network import address_of, on_node

from playbooks import recap


def images(cluster: Deployed) -> set[str]:
    pods = [pod for _kind, name in COMPONENTS for pod in cluster.component_pods(name)]
    return {container.image for pod in pods for container in pod.spec.containers}


@pytest.mark.parametrize("options", [[], ["--check", "--diff"]], ids=["again", "check mode"])
def test_deploying_what_is_deployed_changes_nothing(cluster: Deployed, options: list[str]) -> None:
    output = cluster.playbook("deploy", *options)
    assert recap(output)["changed"] == 0, output


def test_definitions_and_components_are_applied_by_the_server(cluster: Deployed) -> None:
    definitions = client.ApiextensionsV1Api(cluster.core.api_client).list_custom_resource_definition().items
    found = [each for each in definitions if each.spec.group == "kubevirt.io"]
    assert found
    for each in [*found, *cluster.apps.list_namespaced_deployment(NAMESPACE).items]:
        owners = {entry.operation for entry in each.metadata.managed_fields if entry.manager == "turtles.kubevirt"}
        assert owners == {"Apply"}, each.metadata.name


@pytest.mark.usefixtures("original")
def test_what_is_not_declared_any_more_is_removed(cluster: Deployed) -> None:
    def selector() -> dict[str, str]:
        deployment = cluster.apps.read_namespaced_deployment("virt-controller", NAMESPACE)
        return dict(deployment.spec.template.spec.node_selector)

    own = selector()
    hostname = cluster.core.list_node().items[0].metadata.name
    cluster.playbook("deploy", kubevirt_infra={"nodeSelector": {"kubernetes.io/hostname": hostname}})
    assert selector() == {**own, "kubernetes.io/hostname": hostname}
    # what somebody changes by hand is taken back, what they add stays
    patch = {"metadata": {"labels": {"kubevirt.io": "mine", "example.org/mine": "yes"}}}
    cluster.apps.patch_namespaced_deployment("virt-controller", NAMESPACE, patch)
    cluster.playbook("deploy")
    assert selector() == own == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    labels = cluster.apps.read_namespaced_deployment("virt-controller", NAMESPACE).metadata.labels
    assert (labels["kubevirt.io"], labels["example.org/mine"]) == ("virt-controller", "yes")


@pytest.fixture
def guests(cluster: Deployed, namespace: str) -> dict[str, str]:
    """A virtual machine on every node: name and boot id."""
    nodes = [node.metadata.name for node in cluster.core.list_node().items]
    for node in nodes:
        cluster.create(namespace, on_node(cluster, f"on-{node}", node))
    return {f"on-{node}": cluster.boot_id(address_of(cluster.wait_running(namespace, f"on-{node}"))) for node in nodes}


@pytest.mark.usefixtures("original")
def test_an_upgrade_replaces_every_component_and_guests_do_not_notice(
    cluster: Deployed, namespace: str, guests: dict[str, str]
) -> None:
    before = images(cluster)
    cluster.playbook("upgrade", kubevirt_image_tag="the-next")
    cluster.wait_available()
    for _kind, name in COMPONENTS:
        cluster.wait_component(name)

    def replaced() -> bool:
        return all(image.endswith(":the-next") for image in images(cluster))

    wait_for("components of the next tag only", replaced, timeout=180)
    assert not before & images(cluster)
    for name, boot in guests.items():
        vmi = cluster.get(namespace, "virtualmachineinstances", name)
        assert vmi is not None
        assert vmi["status"]["phase"] == "Running"
        assert cluster.boot_id(address_of(vmi)) == boot
    # the new handlers govern the old launchers
    for name in guests:
        cluster.subresource(namespace, name, "stop")
        cluster.wait_stopped(namespace, name)
        cluster.subresource(namespace, name, "start")
        cluster.wait_running(namespace, name)


def test_teardown_refuses_while_there_are_virtual_machines(cluster: Deployed, namespace: str) -> None:
    cluster.settle()
    cluster.create(namespace, cluster.virtual_machine("precious", run_strategy="Halted"))
    output = cluster.playbook("teardown", check=False)
    assert recap(output)["failed"] == 1
    assert "precious" in output or "1 virtual machine" in output.lower(), output
    assert cluster.get(namespace, "virtualmachines", "precious")
    cluster.wait_available(timeout=10)


@pytest.mark.usefixtures("original")
def test_teardown_leaves_nothing(cluster: Deployed) -> None:
    cluster.settle()
    assert any("kubevirt" in line for line in cluster.objects())
    cluster.playbook("teardown")
    cluster.wait_removed()
    for node in cluster.kubernetes.nodes:
        left = node.machine.run(
            "sh", "-c", "ls -d /var/run/kubevirt* /var/lib/kubevirt* /var/lib/kubelet/device-plugins/*kubevirt* || true"
        )
        assert left == ""
        assert not node.machine.processes("virt-")
    assert recap(cluster.playbook("teardown"))["changed"] == 0
    groups = client.ApisApi(cluster.core.api_client).get_api_versions().groups
    assert not [group.name for group in groups if "kubevirt" in group.name]


@pytest.mark.usefixtures("original")
def test_teardown_takes_virtual_machines_along_when_told_so(cluster: Deployed, namespace: str) -> None:
    cluster.settle()
    cluster.create(namespace, cluster.virtual_machine("web"))
    cluster.ssh(address_of(cluster.wait_running(namespace, "web")), "true")
    # the object itself protects them as well
    said = cluster.kubectl("-n", NAMESPACE, "delete", "kubevirt", "kubevirt", "--wait=false", check=False)
    assert "Rejecting the uninstall request" in said
    cluster.playbook("teardown", kubevirt_remove_workloads=True)
    cluster.wait_removed()
    # it was let shut down
    assert any("Stopped" in event and "shut down" in event for event in cluster.events(namespace))
    assert not cluster.core.list_namespaced_pod(namespace).items
