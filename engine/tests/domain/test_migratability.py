# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.domain import migratability

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
