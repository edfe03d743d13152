# SPDX-License-Identifier: GPL-3.0-or-later
"""What processors, memory, firmware and placement of a VMI mean for its Pod."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod
from turtles.controller.pod.memory import overhead

MIB = 1 << 20


def pod(domain: dict[str, Any], *, config: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "testvm", "namespace": "ns", "uid": "vmi-uid", "labels": {}, "annotations": {}},
        "spec": {"domain": {"devices": {}, **domain}, **spec},
        "status": {"phase": "Pending"},
    }
    return launcher_pod(vmi, LauncherConfig("launcher:1", **(config or {})))


def compute(made: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in made["spec"]["containers"] if each["name"] == "compute")


def extra(domain: dict[str, Any], **spec: Any) -> int:
    return overhead({"domain": {"devices": {}, **domain}, **spec}, kvm=False)


def test_emulated_guests_that_can_grow_have_more_room_for_code() -> None:
    memory = {"guest": "64Mi"}
    fixed = extra({"memory": memory, "cpu": {"sockets": 2, "maxSockets": 2}})
    assert extra({"memory": memory, "cpu": {"sockets": 2, "maxSockets": 4}}) == fixed + 32 * MIB


def test_huge_pages() -> None:
    domain = {"memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}}
    made = pod(domain)
    resources = compute(made)["resources"]
    assert resources["requests"]["hugepages-2Mi"] == resources["limits"]["hugepages-2Mi"] == str(64 * MIB)
    assert int(resources["requests"]["memory"]) == extra(domain)
    assert any((volume.get("emptyDir") or {}).get("medium") == "HugePages" for volume in made["spec"]["volumes"])
    mounts = {mount["name"]: mount["mountPath"] for mount in compute(made)["volumeMounts"]}
    assert mounts["hugepages"] == "/dev/hugepages"


@pytest.mark.parametrize(("isolated", "processors"), [(False, "4"), (True, "5")])
def test_processors_of_its_own(isolated: bool, processors: str) -> None:
    cpu = {"cores": 2, "sockets": 2, "threads": 1, "dedicatedCpuPlacement": True, "isolateEmulatorThread": isolated}
    made = pod({"cpu": cpu, "memory": {"guest": "64Mi"}})
    resources = compute(made)["resources"]
    for amounts in (resources["requests"], resources["limits"]):
        assert amounts["cpu"] == processors
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert made["spec"]["nodeSelector"]["cpumanager"] == "true"


def test_overhead_that_is_not_requested() -> None:
    resources = {"overcommitGuestOverhead": True, "requests": {"memory": "64Mi"}}
    requests = compute(pod({"resources": resources, "memory": {"guest": "64Mi"}}))["resources"]["requests"]
    assert requests["memory"] == str(64 * MIB)


@pytest.mark.parametrize(
    ("domain", "mib"),
    [
        ({"memory": {"guest": "64Mi", "reservedOverhead": {"addedOverhead": "32Mi"}}}, 32),
        ({"memory": {"guest": "64Mi"}, "firmware": {"bootloader": {"efi": {}}}}, None),
        ({"memory": {"guest": "64Mi"}, "launchSecurity": {"sev": {}}}, 256),
    ],
)
def test_more_overhead(domain: dict[str, Any], mib: int | None) -> None:
    more = extra(domain) - extra({"memory": {"guest": "64Mi"}})
    assert more > 0 if mib is None else more == mib * MIB


KERNEL = {
    "memory": {"guest": "64Mi"},
    "firmware": {
        "kernelBoot": {
            "kernelArgs": "console=ttyS0",
            "container": {
                "image": "example.org/kernel",
                "imagePullPolicy": "Always",
                "imagePullSecret": "pull",
                "kernelPath": "/vmlinuz",
            },
        }
    },
}


def test_a_kernel_as_an_image_volume() -> None:
    spec = pod(KERNEL, config={"image_volumes": True})["spec"]
    (volume,) = (each for each in spec["volumes"] if "image" in each)
    assert volume["image"] == {"reference": "example.org/kernel", "pullPolicy": "Always"}
    (mount,) = (each for each in spec["containers"][0]["volumeMounts"] if each["name"] == volume["name"])
    assert mount["mountPath"].endswith("/kernel.boot")
    assert {"name": "pull"} in spec["imagePullSecrets"]


def test_a_kernel_in_a_container() -> None:
    spec = pod(KERNEL)["spec"]
    names = [each["name"] for each in spec["containers"]]
    assert "kernel-boot-volume" in " ".join(names) or len(names) > 1
    assert {each["image"] for each in spec["containers"]} >= {"launcher:1", "example.org/kernel"}


def test_placement() -> None:
    spread = [
        {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"a": "b"}},
        }
    ]
    spec = pod(
        {"memory": {"guest": "64Mi"}, "cpu": {"realtime": {}, "dedicatedCpuPlacement": True}},
        architecture="arm64",
        schedulerName="mine",
        topologySpreadConstraints=spread,
        serviceAccountName="robot",
        tolerations=[{"operator": "Exists"}],
    )["spec"]
    assert spec["schedulerName"] == "mine"
    assert spec["topologySpreadConstraints"] == spread
    assert spec["serviceAccountName"] == "robot"
    assert {"operator": "Exists"} in spec["tolerations"]
    assert spec["nodeSelector"]["kubernetes.io/arch"] == "arm64"
    assert spec["nodeSelector"]["kubevirt.io/realtime"] == "true"
