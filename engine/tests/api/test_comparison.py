# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that are written differently and mean the same, and others that only look alike."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from turtles.api.kinds.vmi.comparison import is_same_template

from .objects import put


def template(path: str = "", value: Any = None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "domain": {
            "memory": {"guest": "96Mi"},
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}, "ports": [{"port": 22}]}],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [
            {"name": "root", "containerDisk": {"image": "reg/x:1"}},
            {"name": "seed", "cloudInitNoCloud": {"userData": "x"}},
            {"name": "data", "emptyDisk": {"capacity": "1Gi"}},
        ],
    }
    return put(spec, path, value) if path else spec


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("domain.memory.guest", "100663296"),
        ("domain.memory.guest", 100663296),
        ("domain.memory.guest", "98304Ki"),
        ("domain.resources.requests.memory", "1024Mi"),
        ("domain.resources.requests.cpu", "1000m"),
        ("domain.resources.requests.cpu", 1),
        ("domain.resources.limits", {}),
        ("volumes.2.emptyDisk.capacity", "1073741824"),
        # Defaults that are given
        ("domain.cpu", {"cores": 1}),
        ("domain.cpu", {}),
        ("domain.features", {"acpi": {}}),
        ("domain.clock", {"utc": {}}),
        ("domain.devices.autoattachGraphicsDevice", True),
        ("domain.devices.disks.0.disk.readonly", False),
        ("domain.devices.disks.0.errorPolicy", "stop"),
        ("domain.devices.interfaces.0.model", "virtio"),
        ("domain.devices.interfaces.0.ports.0.protocol", "TCP"),
        ("domain.devices.blockMultiQueue", False),
        ("domain.devices.gpus", []),
        ("networks.0.pod.vmNetworkCIDR", "10.0.2.0/24"),
        ("terminationGracePeriodSeconds", 30),
        ("volumes.0.containerDisk.imagePullPolicy", "IfNotPresent"),
        ("volumes.1.cloudInitNoCloud.secretRef", {"name": ""}),
        # Nothing
        ("nodeSelector", {}),
        ("nodeSelector", None),
        ("tolerations", []),
        ("affinity", {}),
        ("hostname", ""),
        ("domain.firmware", {"bootloader": {"bios": {}}}),
    ],
)
def test_the_same(path: str, value: Any) -> None:
    one, other = template(), template(path, value)
    before = copy.deepcopy((one, other))
    assert one != other
    assert is_same_template(one, other)
    assert is_same_template(other, one)
    assert (one, other) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("domain.memory.guest", "96M"),
        ("domain.memory.guest", "96Gi"),
        ("domain.resources.requests.cpu", "1001m"),
        ("domain.cpu", {"cores": 2}),
        ("domain.features", {"acpi": {"enabled": False}}),
        ("domain.devices.rng", {}),
        ("domain.devices.autoattachGraphicsDevice", False),
        ("domain.devices.interfaces.0.ports", []),
        ("domain.devices.interfaces.0.model", "e1000"),
        ("terminationGracePeriodSeconds", 0),
        ("volumes.0.containerDisk.imagePullPolicy", "Always"),
        ("volumes.0.containerDisk.image", "reg/x:2"),
        ("nodeSelector", {"disk": ""}),
        ("tolerations", [{"operator": "Exists"}]),
        # The configuration says which model there is without, and may say another by now
        ("domain.cpu", {"model": "host-model"}),
        ("evictionStrategy", "None"),
        # What the engine doesn't know it can't judge
        ("someday", {}),
    ],
)
def test_not_the_same(path: str, value: Any) -> None:
    assert not is_same_template(template(), template(path, value))


@pytest.mark.parametrize("spec", [{}, {"domain": 1}, {"domain": {"memory": {"guest": "much"}}}, {"volumes": [1, None]}])
def test_what_admission_would_refuse_today(spec: dict[str, Any]) -> None:
    assert is_same_template(spec, copy.deepcopy(spec))
    assert not is_same_template(spec, template())
