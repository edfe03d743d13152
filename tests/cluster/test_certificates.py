# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""virt-api's certificates are replaced while it is used."""

from __future__ import annotations

import base64
import hashlib
import ssl
from datetime import UTC, datetime

import pytest
from aging import aged
from cryptography import x509
from deployed import NAMESPACE, Deployed
from kubernetes_cluster import wait_for
from user import User

SECRET = "kubevirt-virt-api-certs"
PORT = 8443


def pem(data: dict[str, str], key: str) -> bytes:
    return base64.b64decode(data[key])


def old_authority(data: dict[str, str], days: int) -> str:
    """Return the authority in use as it would be if it had been created so many days earlier."""
    return base64.b64encode(aged(pem(data, "ca.crt"), pem(data, "ca.key"), days)).decode()


def expired(data: dict[str, str]) -> dict[str, str]:
    """The certificates as they are after a year without virt-api."""
    return {"ca.crt": old_authority(data, 400)}


def served(address: str) -> str:
    """The fingerprint of the certificate that a virt-api serves with."""
    found = ssl.get_server_certificate((address, PORT), timeout=10)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found)).hexdigest()


@pytest.mark.parametrize(
    "renewed", ["serving certificate", "authority"], ids=["the serving certificate", "its authority"]
)
def test_certificates_are_replaced_without_anybody_noticing(cluster: Deployed, user: User, renewed: str) -> None:
    data = cluster.core.read_namespaced_secret(SECRET, NAMESPACE).data
    pods = cluster.component_pods("virt-api")
    assert len(pods) == 2
    before = {pod.metadata.name: served(pod.status.pod_ip) for pod in pods}
    assert len(set(before.values())) == 1
    wait_for("requests to begin", lambda: user.done > 5, timeout=60)
    # an authority that is due; or a serving certificate that can't be read, under an authority that is good
    change = {"ca.crt": old_authority(data, 300)} if renewed == "authority" else {"tls.crt": data["ca.crt"]}
    cluster.core.patch_namespaced_secret(SECRET, NAMESPACE, {"data": change})

    def replaced() -> bool:
        now = {pod.metadata.name: served(pod.status.pod_ip) for pod in pods}
        return len(set(now.values())) == 1 and not set(now.values()) & set(before.values())

    wait_for("both replicas to serve with the new certificate", replaced, timeout=120)
    done = user.done
    wait_for("requests with the new certificate", lambda: user.done > done + 50, timeout=120)
    assert user.failures == []
    after = cluster.core.read_namespaced_secret(SECRET, NAMESPACE).data
    assert (pem(after, "ca.key") == pem(data, "ca.key")) == (renewed == "serving certificate")
    names = {pod.metadata.name for pod in cluster.component_pods("virt-api")}
    assert names == set(before), "no virt-api was restarted for it"
    bundle = after["ca.crt"]
    service = cluster.custom.get_cluster_custom_object(
        "apiregistration.k8s.io", "v1", "apiservices", "v1.subresources.kubevirt.io"
    )
    assert service["spec"]["caBundle"] == bundle


def test_certificates_expired_while_nobody_replaced_them(cluster: Deployed, namespace: str) -> None:
    cluster.create(namespace, cluster.virtual_machine("web"))
    vmi = cluster.wait_running(namespace, "web")
    address = vmi["status"]["interfaces"][0]["ipAddress"]
    boot = cluster.boot_id(address)
    before = cluster.component_pods("virt-api")
    data = cluster.core.read_namespaced_secret(SECRET, NAMESPACE).data
    cluster.core.patch_namespaced_secret(SECRET, NAMESPACE, {"data": expired(data)})
    cluster.wait_event(NAMESPACE, SECRET, ["CertificatesExpired", "check the clocks"], timeout=30)
    after = cluster.core.read_namespaced_secret(SECRET, NAMESPACE).data
    bundle = x509.load_pem_x509_certificates(pem(after, "ca.crt"))
    assert all(authority.not_valid_after_utc > datetime.now(UTC) for authority in bundle)
    for pod in before:
        # a program that starts now finds good ones
        cluster.core.delete_namespaced_pod(pod.metadata.name, NAMESPACE)
    cluster.wait_component("virt-api", {pod.metadata.uid for pod in before})
    cluster.wait_available()
    cluster.create(namespace, cluster.virtual_machine("new"))
    cluster.wait_running(namespace, "new")
    assert cluster.boot_id(address) == boot
