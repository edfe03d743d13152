# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks from a private registry with a certificate of its own authority."""

from __future__ import annotations

import base64
import ipaddress
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from conftest import VARIABLES
from image_registry import PASSWORD, USER, ImageRegistry, layer, registry_at
from kubernetes.client.exceptions import ApiException
from test_data_volumes import create, data_volume, failure, wait

pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")
CRONS = ("cdi.kubevirt.io", "v1beta1")
MIB = 1 << 20
SIZE = "40Mi"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageRegistry]:
    bridge = str(ipaddress.ip_network(VARIABLES["turtles_pod_cidr"])[1])
    # The bridge is there once a Pod is
    with registry_at(tmp_path_factory.mktemp("registry"), bridge, listen="0.0.0.0") as found:
        yield found


@pytest.fixture
def access(cluster: Cluster, namespace: str, registry: ImageRegistry) -> Object:
    """Fields of a source, and what they name."""
    secret = {"accessKeyId": USER, "secretKey": PASSWORD}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
    cluster.core.create_namespaced_secret(namespace, {"metadata": {"name": "login"}, "data": data})
    authority = {"metadata": {"name": "ca"}, "data": {"ca.pem": registry.authority.read_text()}}
    cluster.core.create_namespaced_config_map(namespace, authority)
    return {"secretRef": "login", "certConfigMap": "ca"}


def source(registry: ImageRegistry, image: str, **more: Any) -> Object:
    return {"registry": {"url": f"docker://{registry.address}/{image}", **more}}


def start_of(cluster: Cluster, namespace: str, claim: str) -> bytes:
    """The first bytes of a disk."""
    volume = cluster.core.read_namespaced_persistent_volume_claim(claim, namespace).spec.volume_name
    path = cluster.core.read_persistent_volume(volume).spec.local.path
    with open(f"{path}/disk.img", "rb") as file:
        return file.read(8)


def succeeded(status: Object) -> bool:
    return bool(status.get("phase") == "Succeeded")


def test_a_private_registry(cluster: Cluster, namespace: str, registry: ImageRegistry, access: Object) -> None:
    registry.push("web", layer(("disk/root.img", b"content " * MIB)))
    create(cluster, namespace, data_volume("root", source(registry, "web:1", **access), SIZE))
    create(cluster, namespace, data_volume("missing", source(registry, "nothing:1", **access), SIZE))
    anonymous = {"certConfigMap": "ca", "pullMethod": "pod"}
    create(cluster, namespace, data_volume("anonymous", source(registry, "web:1", **anonymous), SIZE))
    create(cluster, namespace, data_volume("untrusted", source(registry, "web:1", secretRef="login"), SIZE))
    for name, words in (
        ("missing", "manifest unknown"),
        ("anonymous", "give its credentials with secretRef"),
        ("untrusted", "name the authority of the registry's certificate with certConfigMap"),
    ):
        assert words in failure(wait(cluster, namespace, name, failure))
    wait(cluster, namespace, "root", succeeded)
    assert start_of(cluster, namespace, "root") == b"content "
    left = {each.metadata.name for each in cluster.core.list_namespaced_persistent_volume_claim(namespace).items}
    assert "root-scratch" not in left
    # It comes later
    registry.push("nothing", layer(("disk/root.img", b"at last!" * MIB)))
    wait(cluster, namespace, "missing", succeeded, timeout=120)
    assert start_of(cluster, namespace, "missing") == b"at last!"


def test_an_importer_that_is_killed_while_it_pulls(
    cluster: Cluster, namespace: str, registry: ImageRegistry, access: Object
) -> None:
    content = b"content " * MIB + os.urandom(64 * MIB)
    registry.push("big", layer(("disk/root.img", content)))
    create(cluster, namespace, data_volume("root", source(registry, "big:1", **access), "128Mi"))
    for restarts in (0, 1):

        def pulls(status: Object, restarts: int = restarts) -> bool:
            return status.get("phase") == "ImportInProgress" and status.get("restartCount") == restarts

        wait(cluster, namespace, "root", pulls, timeout=120)
        (pod,) = cluster.core.list_namespaced_pod(namespace).items
        for pid in cluster.processes_of_pod(pod.metadata.uid, "virt-importer"):
            os.kill(pid, signal.SIGKILL)
    done = wait(cluster, namespace, "root", succeeded, timeout=180)
    assert done["restartCount"] == 2
    volume = cluster.core.read_namespaced_persistent_volume_claim("root", namespace).spec.volume_name
    path = Path(cluster.core.read_persistent_volume(volume).spec.local.path)
    assert [each.name for each in path.iterdir()] == ["disk.img"]
    with (path / "disk.img").open("rb") as file:
        assert file.read(len(content)) == content
    left = {each.metadata.name for each in cluster.core.list_namespaced_persistent_volume_claim(namespace).items}
    assert left == {"root"}


def test_what_an_import_names_comes_later(cluster: Cluster, namespace: str, registry: ImageRegistry) -> None:
    registry.push("web", layer(("disk/root.img", b"content " * MIB)))
    wanted = source(registry, "web:1", secretRef="login", certConfigMap="ca")
    create(cluster, namespace, data_volume("root", wanted, SIZE))
    words = f"ConfigMap {namespace}/ca, which spec.source.registry.certConfigMap names, does not exist"
    assert words in failure(wait(cluster, namespace, "root", failure))
    authority = {"metadata": {"name": "ca"}, "data": {"ca.pem": registry.authority.read_text()}}
    cluster.core.create_namespaced_config_map(namespace, authority)
    words = f"Secret {namespace}/login, which spec.source.registry.secretRef names, does not exist"
    wait(cluster, namespace, "root", lambda status: words in failure(status), timeout=120)
    secret = {"accessKeyId": USER, "secretKey": PASSWORD}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
    cluster.core.create_namespaced_secret(namespace, {"metadata": {"name": "login"}, "data": data})
    wait(cluster, namespace, "root", succeeded, timeout=120)


def cron_status(
    cluster: Cluster, namespace: str, name: str, done: Callable[[Object], Any], what: str, timeout: float = 60
) -> Object:
    group, version = CRONS
    found = cluster.wait(
        namespace,
        "dataimportcrons",
        name,
        lambda cron: done((cron or {}).get("status") or {}),
        timeout=timeout,
        what=what,
        group=group,
        version=version,
    )
    assert found is not None
    return dict(found["status"])


def is_up_to_date(status: Object) -> bool:
    return any(each["type"] == "UpToDate" and each["status"] == "True" for each in status.get("conditions") or ())


def disk_of(cluster: Cluster, namespace: str) -> bytes:
    source = cluster.custom.get_namespaced_custom_object(*CRONS, namespace, "datasources", "web")
    return start_of(cluster, namespace, source["spec"]["source"]["pvc"]["name"])


def test_a_data_source_follows_a_tag(cluster: Cluster, namespace: str, registry: ImageRegistry, access: Object) -> None:
    first = registry.push("stable", layer(("disk/root.img", b"version1" * MIB)))
    template = {"spec": data_volume("x", source(registry, "stable:1", **access), SIZE)["spec"]}
    cron: Object = {
        "apiVersion": "/".join(CRONS),
        "kind": "DataImportCron",
        "metadata": {"name": "web", "labels": {"instancetype.kubevirt.io/default-preference": "debian"}},
        "spec": {
            "template": template,
            "schedule": "*/1 * * * *",
            "managedDataSource": "web",
            "importsToKeep": 1,
            "retentionPolicy": "None",
        },
    }
    wrong = {**cron, "spec": {**cron["spec"], "schedule": "every day"}}
    with pytest.raises(ApiException) as error:
        cluster.custom.create_namespaced_custom_object(*CRONS, namespace, "dataimportcrons", wrong)
    assert "Illegal cron schedule" in str(error.value.body)
    cluster.custom.create_namespaced_custom_object(*CRONS, namespace, "dataimportcrons", cron)
    status = cron_status(cluster, namespace, "web", is_up_to_date, "the first import")
    (current,) = status["currentImports"]
    assert current == {"DataVolumeName": f"web-{first[7:19]}", "Digest": first}
    assert status["lastImportedPVC"] == {"namespace": namespace, "name": current["DataVolumeName"]}
    assert disk_of(cluster, namespace) == b"version1"
    # The tag moves, and whoever sees to it dies
    second = registry.push("stable", layer(("disk/root.img", b"version2" * MIB)))
    cluster.kill("virt-controller")

    def has_second(found: Object) -> bool:
        return is_up_to_date(found) and found["currentImports"][0]["Digest"] == second

    cron_status(cluster, namespace, "web", has_second, "the second import", timeout=150)
    assert disk_of(cluster, namespace) == b"version2"
    source_ = cluster.custom.get_namespaced_custom_object(*CRONS, namespace, "datasources", "web")
    assert source_["metadata"]["labels"]["instancetype.kubevirt.io/default-preference"] == "debian"
    # One is kept, and none without the DataImportCron
    group, version = CRONS
    where = {"group": group, "version": version, "timeout": 30}
    cluster.wait(namespace, "datavolumes", f"web-{first[7:19]}", lambda found: found is None, what="its end", **where)
    cluster.custom.delete_namespaced_custom_object(*CRONS, namespace, "dataimportcrons", "web")
    for plural, name in (("datasources", "web"), ("datavolumes", f"web-{second[7:19]}")):
        cluster.wait(namespace, plural, name, lambda found: found is None, what="its end", **where)


def test_a_data_source_follows_a_claim(cluster: Cluster, namespace: str) -> None:
    create(cluster, namespace, data_volume("golden", {"blank": {}}, SIZE))
    wait(cluster, namespace, "golden", succeeded)
    copied = {"pvc": {"namespace": namespace, "name": "golden"}}
    cron: Object = {
        "apiVersion": "/".join(CRONS),
        "kind": "DataImportCron",
        "metadata": {"name": "web"},
        "spec": {
            "template": {"spec": data_volume("x", copied, SIZE)["spec"]},
            "schedule": "*/1 * * * *",
            "managedDataSource": "web",
        },
    }
    made = cluster.custom.create_namespaced_custom_object(*CRONS, namespace, "dataimportcrons", cron)
    assert '"username"' in made["spec"]["createdBy"]
    status = cron_status(cluster, namespace, "web", is_up_to_date, "the first copy", timeout=120)
    uid = cluster.core.read_namespaced_persistent_volume_claim("golden", namespace).metadata.uid
    (current,) = status["currentImports"]
    assert current == {"DataVolumeName": f"web-{uid[:12]}", "Digest": f"uid:{uid}"}
    found = cluster.custom.get_namespaced_custom_object(*CRONS, namespace, "datasources", "web")
    assert found["spec"]["source"]["pvc"] == {"namespace": namespace, "name": current["DataVolumeName"]}
