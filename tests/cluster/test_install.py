# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deploying, upgrading and removing the engine with the playbooks."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deployed import COMPONENTS, NAMESPACE, Deployed, objects_of_the_engine
from kubernetes import client
from kubernetes_cluster import Cluster, wait_for
from test_network import address_of, on_node

from playbooks import playbook, recap

ENGINE = Path(__file__).parents[2] / "engine"
#: Later than any other.
NEXT = "99.0.0"


def images(cluster: Deployed) -> set[str]:
    pods = [pod for _kind, name in COMPONENTS for pod in cluster.component_pods(name)]
    return {container.image for pod in pods for container in pod.spec.containers}


@pytest.mark.parametrize("options", [[], ["--check", "--diff"]], ids=["again", "check mode"])
def test_deploying_what_is_deployed_changes_nothing(cluster: Deployed, options: list[str]) -> None:
    output = cluster.playbook("deploy", *options)
    assert recap(output)["changed"] == 0, output


def test_check_mode_on_an_empty_cluster_says_what_would_be_and_makes_nothing(
    control_plane: Cluster, tmp_path: Path
) -> None:
    api_client = control_plane.client()
    before = list(objects_of_the_engine(api_client))
    given = {
        "kubeconfig": str(control_plane.kubeconfig),
        # asked for what it has, and never pushed to
        "kubevirt_registry": "registry.invalid/kubevirt",
        "guest_image_archive": str(tmp_path / "tiny.tar"),
        "guest_image_programs_dir": str(tmp_path / "guest_image"),
    }
    words = ("turtles.kubevirt.deploy", "--check", "--diff", "-e", json.dumps(given))
    output = playbook(*words, folder=tmp_path).stdout
    assert recap(output)["changed"] > 0, output
    for kind, name in COMPONENTS:
        assert f"{kind} {NAMESPACE}/{name}" in output
    assert list(objects_of_the_engine(api_client)) == before
    assert not (tmp_path / "tiny.tar").exists()


@pytest.mark.usefixtures("original")
def test_variables_of_components_arrive_where_they_belong(cluster: Deployed) -> None:
    infra = {"key": "example.org/infra", "operator": "Exists"}
    machines = {"key": "example.org/machines", "operator": "Exists", "effect": "NoSchedule"}
    resources = {"requests": {"memory": "150Mi", "cpu": "30m"}, "limits": {"memory": "500Mi"}}
    variables = {
        "kubevirt_replicas": 1,
        "kubevirt_infra": {"tolerations": [infra]},
        "kubevirt_workloads": {"tolerations": [machines]},
        "kubevirt_resources": {"virt-api": resources, "virt-handler": resources},
    }
    cluster.playbook("deploy", **variables)
    cluster.wait_available()

    def tolerated(workload: client.V1Deployment | client.V1DaemonSet) -> set[str]:
        return {toleration.key for toleration in workload.spec.template.spec.tolerations or []}

    def arrived() -> bool:
        api, controller = (
            cluster.apps.read_namespaced_deployment(name, NAMESPACE) for name in ("virt-api", "virt-controller")
        )
        handler = cluster.apps.read_namespaced_daemon_set("virt-handler", NAMESPACE)
        return (
            api.spec.replicas == controller.spec.replicas == 1
            and all(infra["key"] in tolerated(each) for each in (api, controller))
            and machines["key"] in tolerated(handler)
        )

    # replicas and placement are the KubeVirt object's, and so virt-controller's to bring about
    wait_for("replicas and tolerations of the variables", arrived, timeout=180)
    handler = cluster.apps.read_namespaced_daemon_set("virt-handler", NAMESPACE)
    api, controller = (
        cluster.apps.read_namespaced_deployment(name, NAMESPACE) for name in ("virt-api", "virt-controller")
    )
    assert infra["key"] not in tolerated(handler)
    assert machines["key"] not in tolerated(api) | tolerated(controller)
    for workload in (api, handler):
        (container,) = workload.spec.template.spec.containers
        assert container.resources.requests == resources["requests"]
        assert container.resources.limits == resources["limits"]
    (container,) = controller.spec.template.spec.containers
    assert not container.resources.limits
    for _kind, name in COMPONENTS:
        cluster.wait_component(name)
    output = cluster.playbook("deploy", **variables)
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


@pytest.fixture
def next_engine(tmp_path: Path) -> Path:
    """The engine's sources as those of a later version."""
    copy = tmp_path / "engine"
    shutil.copytree(ENGINE, copy, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    module = copy / "src/turtles/__init__.py"
    text, count = re.subn(r'^__version__ = ".*"$', f'__version__ = "{NEXT}"', module.read_text(), flags=re.MULTILINE)
    assert count == 1
    module.write_text(text)
    return copy


def registered_by(cluster: Deployed) -> set[str]:
    """The version that has registered the webhooks."""
    admission = client.AdmissionregistrationV1Api(cluster.core.api_client)
    found = (
        admission.read_mutating_webhook_configuration("virt-api-mutator"),
        admission.read_validating_webhook_configuration("virt-api-validator"),
    )
    return {(each.metadata.annotations or {}).get("kubevirt.io/install-strategy-version") for each in found}


@pytest.mark.usefixtures("original")
def test_an_upgrade_replaces_every_component_and_guests_do_not_notice(
    cluster: Deployed, namespace: str, guests: dict[str, str], next_engine: Path
) -> None:
    before = images(cluster)
    cluster.playbook("upgrade", engine_source=str(next_engine))
    cluster.wait_available()
    for _kind, name in COMPONENTS:
        cluster.wait_component(name)

    def replaced() -> bool:
        return all(f":{NEXT}-" in image for image in images(cluster))

    wait_for("components of the next version only", replaced, timeout=180)
    assert not before & images(cluster)
    # what replicas of both versions have registered meanwhile is the last one's
    wait_for("webhooks of the next version", lambda: registered_by(cluster) == {f"v{NEXT}"}, timeout=120)

    def observed() -> bool:
        kubevirt = cluster.custom.get_namespaced_custom_object("kubevirt.io", "v1", NAMESPACE, "kubevirts", "kubevirt")
        return bool(kubevirt["status"]["observedKubeVirtVersion"] == f"v{NEXT}")

    wait_for("the next version in the KubeVirt object", observed, timeout=60)
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
    pods = cluster.core.list_namespaced_pod(NAMESPACE).items
    users = {f"system:serviceaccount:{NAMESPACE}:{pod.spec.service_account_name}" for pod in pods}
    since = datetime.now(UTC)
    cluster.playbook("teardown")
    cluster.wait_removed()
    if cluster.kubernetes.nodes:
        assert not cluster.refused(users, since)
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
