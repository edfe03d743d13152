# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a user gets wrong is said clearly, at once where it can be, and leaves nothing half made."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from engine import Engine, Object, condition


def half_a_mac_address(spec: Object) -> None:
    spec["domain"]["devices"]["interfaces"][0]["macAddress"] = "02:00:00"


def unknown_volume(spec: Object) -> None:
    spec["domain"]["devices"]["disks"][0]["name"] = "nowhere"


def bad_base64(spec: Object) -> None:
    spec["volumes"][1]["cloudInitNoCloud"]["userDataBase64"] = "%%%"


def two_sources(spec: Object) -> None:
    spec["volumes"][0]["emptyDisk"] = {"capacity": "1Gi"}


def persistent_reservation(spec: Object) -> None:
    spec["domain"]["devices"]["disks"][0] = {"name": "root", "lun": {"bus": "scsi", "reservation": True}}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (half_a_mac_address, ["spec.template.spec.domain.devices.interfaces[0]", "malformed MAC address (02:00:00)"]),
        (unknown_volume, ["spec.template.spec.domain.devices.disks[0].Name 'nowhere' not found"]),
        (bad_base64, ["spec.template.spec.volumes[1].cloudInitNoCloud.userDataBase64", "base64"]),
        (two_sources, ["spec.template.spec.volumes[0] must have exactly one source type set"]),
        (
            persistent_reservation,
            [
                "persistent reservation is not enabled in kubevirt config",
                "disks[0].lun can only be mapped to a DataVolume",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_by_the_api(cluster: Engine, namespace: str, spoil: Callable[[Object], None], words: list[str]) -> None:
    vm = cluster.virtual_machine("web")
    spoil(vm["spec"]["template"]["spec"])
    with pytest.raises(ApiException) as refused:
        cluster.create(namespace, vm)
    status = json.loads(refused.value.body)
    assert refused.value.status == 422
    assert status["reason"] == "Invalid"
    for word in words:
        assert word in status["message"]
    assert cluster.get(namespace, "virtualmachines", "web") is None


def test_a_template_without_memory(cluster: Engine, namespace: str) -> None:
    """It is accepted: what makes the instance may add it. The instance isn't."""
    vm = cluster.virtual_machine("web")
    del vm["spec"]["template"]["spec"]["domain"]["memory"]
    cluster.create(namespace, vm)
    words = "no memory requested, at least one of 'spec.domain.memory.guest'"
    cluster.wait(
        namespace,
        "virtualmachines",
        "web",
        lambda o: o and words in condition(o, "Failure").get("message", ""),
        timeout=30,
        what="the condition Failure",
    )


def test_a_namespace_that_does_not_exist(cluster: Engine) -> None:
    with pytest.raises(ApiException) as refused:
        cluster.create("nowhere", cluster.virtual_machine("web"))
    assert refused.value.status == 404
    assert json.loads(refused.value.body)["message"] == 'namespaces "nowhere" not found'


def test_a_wrong_token(cluster: Engine) -> None:
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": "wrong"}
    api = config.new_client_from_config_dict(kubeconfig)
    with pytest.raises(ApiException) as refused:
        client.CoreV1Api(api).list_namespace()
    assert refused.value.status == 401


@pytest.fixture
def image(cluster: Engine, tmp_path: Path) -> Callable[[str, dict[str, Path]], str]:
    """Makes an image of one layer with the given files for the engine; its reference."""

    def build(name: str, files: dict[str, Path]) -> str:
        layout, archive = tmp_path / name, tmp_path / f"{name}.tar"
        bundle = tmp_path / f"{name}.bundle"
        for command in (
            ["umoci", "init", "--layout", str(layout)],
            ["umoci", "new", "--image", f"{layout}:latest"],
            ["umoci", "unpack", "--image", f"{layout}:latest", str(bundle)],
        ):
            subprocess.run(command, check=True, capture_output=True)
        for inside, source in files.items():
            place = bundle / "rootfs" / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(source.read_bytes())
        subprocess.run(["umoci", "repack", "--image", f"{layout}:latest", str(bundle)], check=True, capture_output=True)
        with tarfile.open(archive, "w") as tar:
            for entry in sorted(layout.rglob("*")):
                tar.add(entry, arcname=str(entry.relative_to(layout)), recursive=False)
        return cluster.publish(archive)

    return build


def make_disk(path: Path, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "16M"], check=True)
    return path


def test_images_that_cannot_be_disks(
    cluster: Engine, namespace: str, image: Callable[[str, dict[str, Path]], str], tmp_path: Path
) -> None:
    base = make_disk(tmp_path / "base.qcow2")
    backed = make_disk(tmp_path / "backed.qcow2", "-b", str(base), "-F", "qcow2")
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(base.read_bytes()[:8] + bytes(200))
    cases: dict[str, tuple[str, list[str]]] = {
        "nodisk": (image("nodisk", {"etc/motd": base}), ["/disk"]),
        "backed": (image("backed", {"disk/disk.qcow2": backed}), ["backing file"]),
        "broken": (image("broken", {"disk/disk.qcow2": broken}), ["root"]),
        "missing": (cluster.image.replace("tiny", "missing"), ["missing"]),
        "outside": ("oci-archive:/etc/shadow", ["/etc/shadow"]),
    }
    for name, (reference, _words) in cases.items():
        cluster.create(namespace, cluster.virtual_machine(name, image=reference))
    for name, (_reference, words) in cases.items():
        cluster.wait(
            namespace,
            "virtualmachines",
            name,
            lambda o: (
                o
                and o.get("status", {}).get("printableStatus")
                in ("CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff")
            ),
            timeout=60,
            what="printableStatus that tells of the broken image",
        )
        cluster.wait_event(namespace, name, words, timeout=60)
        cluster.delete(namespace, name)
    for name in cases:
        cluster.wait_gone(namespace, name)
    assert not cluster.core.list_namespaced_pod(namespace).items


def test_a_disk_that_does_not_fit(cluster: Engine, namespace: str) -> None:
    vm = cluster.virtual_machine("web")
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": "scratch", "disk": {"bus": "virtio"}})
    spec["volumes"].append({"name": "scratch", "emptyDisk": {"capacity": "50Ti"}})
    cluster.create(namespace, vm)
    cluster.wait_status(namespace, "web", "CrashLoopBackOff")
    cluster.wait_event(namespace, "web", ["scratch", "free"], timeout=60)
    failed = cluster.get(namespace, "virtualmachines", "web")
    assert failed is not None
    assert "scratch" in condition(failed, "Failure")["message"]


def test_annotations_that_do_not_fit_in_the_pod(cluster: Engine, namespace: str) -> None:
    vm = cluster.virtual_machine("web")
    # of the 256 KiB that Kubernetes allows; the Pod has more annotations than its VMI
    vm["spec"]["template"]["metadata"]["annotations"] = {"note": "x" * (256 * 1024 - 150)}
    cluster.create(namespace, vm)
    words = ["FailedCreate", "annotations: Too long", "shorten the machine's annotations"]
    cluster.wait_event(namespace, "web", words, timeout=30)
    vmi = cluster.get(namespace, "virtualmachineinstances", "web")
    assert vmi is not None
    assert "annotations: Too long" in condition(vmi, "Synchronized")["message"]


def test_the_module_says_why_a_vm_does_not_come(cluster: Engine, namespace: str, ansible: Callable[..., Any]) -> None:
    result = ansible(
        "turtles.kubevirt.vm",
        {
            "kubeconfig": str(cluster.kubeconfig),
            "namespace": namespace,
            "name": "web",
            "state": "running",
            "spec": cluster.virtual_machine("web", image=cluster.image.replace("tiny", "missing"))["spec"],
            "wait_timeout": cluster.seconds(60),
        },
        fails=True,
    )
    assert "missing" in result["msg"]
    assert "web" in result["msg"]
    # the instance never ran, and follows its corrected template without a restart
    corrected = cluster.virtual_machine("web")["spec"]["template"]["spec"]["volumes"]
    cluster.patch(namespace, "web", {"spec": {"template": {"spec": {"volumes": corrected}}}})
    cluster.wait_running(namespace, "web")
