# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.domain import migratability, network
from turtles.domain.interface_names import pod_interface_name
from turtles.domain.network import PodInterface

CLAIM = [{"name": "r", "persistentVolumeClaim": {"claimName": "c"}}]


def make_vmi(binding: str = "masquerade", **options: Any) -> dict[str, Any]:
    domain = {"devices": {"interfaces": [{"name": "default", binding: {}}], **options.get("devices", {})}}
    modes = options.get("modes", [])
    return {
        "metadata": {"annotations": options.get("annotations", {})},
        "spec": {
            "domain": {**domain, **options.get("domain", {})},
            "networks": [{"name": "default", "pod": {}}],
            "volumes": options.get("volumes", []),
        },
        "status": {"volumeStatus": [{"name": "r", "persistentVolumeClaimInfo": {"accessModes": modes}}]},
    }


@pytest.mark.parametrize(
    ("vmi", "method", "reason"),
    [
        (make_vmi(), "LiveMigration", ""),
        (make_vmi(volumes=[{"name": "r", "containerDisk": {}}]), "BlockMigration", ""),
        (make_vmi(volumes=[{"name": "r", "cloudInitNoCloud": {}}]), "BlockMigration", ""),
        (make_vmi("bridge"), "LiveMigration", "InterfaceNotLiveMigratable"),
        (
            make_vmi("bridge", annotations={"kubevirt.io/allow-pod-bridge-network-live-migration": ""}),
            "LiveMigration",
            "",
        ),
        (make_vmi(volumes=CLAIM, modes=["ReadWriteOnce"]), "LiveMigration", "DisksNotLiveMigratable"),
        (make_vmi(volumes=CLAIM, modes=["ReadWriteMany"]), "LiveMigration", ""),
        (
            make_vmi(
                volumes=[{"name": "r", "persistentVolumeClaim": {"claimName": "c", "hotpluggable": True}}],
                modes=["ReadWriteMany"],
            ),
            "LiveMigration",
            "DisksNotLiveMigratable",
        ),
        (make_vmi(volumes=[{"name": "h", "hostDisk": {"path": "/d"}}]), "LiveMigration", "DisksNotLiveMigratable"),
        (make_vmi(domain={"cpu": {"model": "host-passthrough"}}), "LiveMigration", "CPUModeLiveMigratable"),
        (make_vmi(devices={"gpus": [{}]}), "LiveMigration", "HostDeviceNotLiveMigratable"),
        (make_vmi(devices={"hostDevices": [{}]}), "LiveMigration", "HostDeviceNotLiveMigratable"),
        (make_vmi(devices={"filesystems": [{"name": "f"}]}), "LiveMigration", "VirtIOFSNotLiveMigratable"),
        # The first reason counts
        (
            make_vmi("bridge", volumes=CLAIM, devices={"gpus": [{}]}),
            "LiveMigration",
            "InterfaceNotLiveMigratable",
        ),
        (
            make_vmi(volumes=CLAIM, domain={"cpu": {"model": "host-passthrough"}}),
            "LiveMigration",
            "CPUModeLiveMigratable",
        ),
    ],
)
def test_reasons_and_their_order(vmi: dict[str, Any], method: str, reason: str) -> None:
    found = migratability.of(vmi)
    assert (found.method, found.reason, bool(found.message)) == (method, reason, bool(reason))


@pytest.mark.parametrize(
    ("addresses", "annotations", "reason"),
    [
        ((), {}, ""),
        ((("198.51.100.5", 24),), {}, "InterfaceNotLiveMigratable"),
        ((("198.51.100.5", 24),), {"kubevirt.io/allow-pod-bridge-network-live-migration": ""}, ""),
    ],
)
def test_an_address_of_the_pod_does_not_come_along(addresses: Any, annotations: dict[str, str], reason: str) -> None:
    vmi = make_vmi(annotations=annotations)
    vmi["metadata"]["uid"] = "u"
    vmi["spec"]["domain"]["devices"]["interfaces"].append({"name": "lan", "bridge": {}})
    vmi["spec"]["networks"].append({"name": "lan", "multus": {"networkName": "lan"}})
    facts = {
        name: PodInterface(name, "02:00:00:00:00:01", found, None, 1500)
        for name, found in (
            ("eth0", (("192.0.2.5", 24),)),
            (pod_interface_name(vmi["spec"]["networks"][1]), addresses),
        )
    }
    found = migratability.of(vmi, network.plans(vmi, facts))
    assert found.reason == reason
    assert ("interface lan has an address of its Pod" in found.message) is bool(reason)
