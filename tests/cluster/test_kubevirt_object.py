# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the KubeVirt object says takes effect, and nothing restarts that it isn't about."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from deployed import COMPONENTS, NAMESPACE, Deployed
from kubernetes.client.exceptions import ApiException
from kubernetes_cluster import wait_for
from test_network import address_of

OBJECT = ("kubevirt.io", "v1", NAMESPACE, "kubevirts", "kubevirt")
SECRET = "kubevirt-virt-api-certs"
Change = Callable[..., None]


@pytest.fixture
def change(cluster: Deployed) -> Iterator[Change]:
    """Patches the object's spec; it is as before in the end."""
    before = cluster.custom.get_namespaced_custom_object(*OBJECT)["spec"]

    def patch(**spec: Any) -> None:
        cluster.custom.patch_namespaced_custom_object(*OBJECT, {"spec": spec})

    yield patch
    now = cluster.custom.get_namespaced_custom_object(*OBJECT)["spec"]
    patch(**dict.fromkeys(now.keys() - before.keys()), **before)
    settled(cluster)


def settled(cluster: Deployed) -> None:
    """Until all runs as the object says."""

    def done() -> bool:
        found = cluster.custom.get_namespaced_custom_object(*OBJECT)
        conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
        current = found["status"]["observedGeneration"] == found["metadata"]["generation"]
        return current and (conditions["Available"], conditions["Progressing"]) == ("True", "False")

    wait_for("the components to run as the object says", done, timeout=300)


def test_the_object_says_that_all_runs(cluster: Deployed) -> None:
    settled(cluster)
    status = cluster.custom.get_namespaced_custom_object(*OBJECT)["status"]
    assert status["phase"] == "Deployed"
    # Those of KubeVirt's operator, and no others
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Available": "True",
        "Progressing": "False",
        "Degraded": "False",
        "Created": "True",
        "Synchronized": "True",
    }
    assert all(each["reason"] and each["message"] for each in status["conditions"])


def pods(cluster: Deployed) -> dict[str, set[str]]:
    return {name: {pod.metadata.uid for pod in cluster.component_pods(name)} for _kind, name in COMPONENTS}


def test_replicas_come_and_go_and_the_others_stay(cluster: Deployed, change: Change) -> None:
    before = pods(cluster)
    change(infra={"replicas": 3})
    settled(cluster)
    after = pods(cluster)
    assert {name: len(uids) for name, uids in after.items()} == {
        **{n: len(u) for n, u in before.items()},
        "virt-api": 3,
        "virt-controller": 3,
    }
    assert all(before[name] <= after[name] for name in before), "none of before was restarted"
    change(infra=None)
    settled(cluster)
    assert {len(pods(cluster)[name]) for name in ("virt-api", "virt-controller")} == {2}


def test_components_move_where_infra_says_and_the_node_agents_stay(cluster: Deployed, change: Change) -> None:
    node = cluster.core.list_node().items[0].metadata.name
    before = pods(cluster)
    change(infra={"nodePlacement": {"nodeSelector": {"kubernetes.io/hostname": node}}})
    settled(cluster)
    for name in ("virt-api", "virt-controller"):
        assert {pod.spec.node_name for pod in cluster.component_pods(name)} == {node}
    assert pods(cluster)["virt-handler"] == before["virt-handler"]
    # The roles make of it what the object says, not what they would say
    cluster.playbook("deploy")
    for name in ("virt-api", "virt-controller"):
        assert {pod.spec.node_name for pod in cluster.component_pods(name)} == {node}


def test_a_placement_that_the_api_server_refuses_is_told(cluster: Deployed, change: Change) -> None:
    before = pods(cluster)
    change(workloads={"nodePlacement": {"tolerations": [{"key": "a", "operator": "Sometimes"}]}})

    words = "virt-handler can't be changed to match spec.workloads of the KubeVirt object"

    def told() -> bool:
        found = cluster.custom.get_namespaced_custom_object(*OBJECT)
        said = {each["type"]: each for each in found["status"]["conditions"]}
        synchronized = said["Synchronized"]
        return (
            words in said["Progressing"].get("message", "")
            and words in synchronized.get("message", "")
            and (synchronized["status"], synchronized["reason"]) == ("False", "DeploymentFailed")
        )

    wait_for("conditions with the refusal", told, timeout=60)
    assert pods(cluster) == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"infra": {"replicas": 0}}, "infra replica count can't be 0"),
        ({"certificateRotateStrategy": {"selfSigned": {"ca": {"duration": "1d"}}}}, "one looks like 24h or 1h30m"),
        ({"configuration": {"tlsConfiguration": {"ciphers": ["NULL"]}}}, "You cannot specify ciphers when"),
    ],
)
def test_what_makes_no_sense_is_refused(cluster: Deployed, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiException) as refusal:
        cluster.custom.patch_namespaced_custom_object(*OBJECT, {"spec": spec})
    assert refusal.value.status == 422
    assert words in refusal.value.body


def test_shorter_lifetimes_of_certificates_count_at_once_and_without_a_restart(
    cluster: Deployed, change: Change
) -> None:
    def serving() -> x509.Certificate:
        data = cluster.core.read_namespaced_secret(SECRET, NAMESPACE).data
        return x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))

    first, before = serving(), pods(cluster)
    # As old as it is, this one should have been replaced
    minutes = int((first.not_valid_after_utc - first.not_valid_before_utc).total_seconds() // 60)
    assert minutes > 60
    change(certificateRotateStrategy={"selfSigned": {"server": {"duration": "20m", "renewBefore": "19m59s"}}})

    def is_short() -> bool:
        # a replica that learns of it a moment later than another makes one as before, and corrects it within a minute
        found = serving()
        return found != first and found.not_valid_after_utc - found.not_valid_before_utc < timedelta(minutes=30)

    wait_for("a serving certificate that lives as long as it should", is_short, timeout=180)
    assert pods(cluster) == before


def test_guests_that_start_now_see_other_smbios_values(cluster: Deployed, change: Change, namespace: str) -> None:
    change(configuration={"smbios": {"manufacturer": "Example", "sku": "42"}})
    settled(cluster)
    cluster.create(namespace, cluster.virtual_machine("web"))
    address = address_of(cluster.wait_running(namespace, "web"))
    for name, value in {"sys_vendor": "Example", "product_sku": "42", "product_family": "KubeVirt"}.items():
        assert cluster.ssh(address, f"cat /sys/class/dmi/id/{name}").strip() == value
