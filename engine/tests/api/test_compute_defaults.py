# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission sets for processors, memory, firmware and features."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import Context
from turtles.api.kinds.vmi.defaults import default
from turtles.api.quantity import canonical


def defaulted(domain: dict[str, Any], spec: dict[str, Any] | None = None, **configuration: Any) -> dict[str, Any]:
    config = from_kubevirt({"spec": {"configuration": configuration}})
    vmi = {"metadata": {"name": "a"}, "spec": {"domain": {"devices": {}, **domain}, **(spec or {})}}
    return default(vmi, Context(config))


def domain_of(domain: dict[str, Any], spec: dict[str, Any] | None = None, **configuration: Any) -> dict[str, Any]:
    found: dict[str, Any] = defaulted(domain, spec, **configuration)["spec"]["domain"]
    return found


@pytest.mark.parametrize(
    ("resources", "memory", "expected"),
    [
        ({"requests": {"memory": "1024Mi"}}, {}, {"guest": "1Gi", "maxGuest": "4Gi"}),
        ({"limits": {"memory": "2Gi"}}, {}, {"guest": "2Gi", "maxGuest": "8Gi"}),
        ({"requests": {"memory": "64M"}}, {"guest": "1Gi"}, {"guest": "1Gi", "maxGuest": "4Gi"}),
        ({}, {"guest": "1000M"}, {"guest": "1G"}),
        ({}, {"guest": "512Mi"}, {"guest": "512Mi"}),
        ({}, {"guest": "1Gi", "maxGuest": "2Gi"}, {"guest": "1Gi", "maxGuest": "2Gi"}),
        ({}, {"hugepages": {"pageSize": "2Mi"}}, {"guest": "2Mi", "hugepages": {"pageSize": "2Mi"}}),
        (
            {},
            {"guest": "1536Mi", "hugepages": {"pageSize": "1Gi"}},
            {"guest": "1536Mi", "hugepages": {"pageSize": "1Gi"}},
        ),
        ({}, {}, {}),
    ],
)
def test_memory(resources: dict[str, Any], memory: dict[str, Any], expected: dict[str, Any]) -> None:
    assert domain_of({"resources": resources, "memory": memory})["memory"] == expected


def test_memory_cannot_grow_where_it_does_not_fit() -> None:
    grow = {"memory": {"guest": "1Gi"}}
    assert "maxGuest" not in domain_of({**grow, "cpu": {"realtime": {}}})["memory"]
    assert "maxGuest" not in domain_of({**grow, "launchSecurity": {"sev": {}}})["memory"]
    assert "maxGuest" not in domain_of(grow, {"architecture": "s390x"})["memory"]
    assert "maxGuest" not in domain_of(grow, vmRolloutStrategy="Stage")["memory"]
    assert domain_of(grow, liveUpdateConfiguration={"maxGuest": "3Gi"})["memory"]["maxGuest"] == "3Gi"
    assert domain_of(grow, liveUpdateConfiguration={"maxHotplugRatio": 2})["memory"]["maxGuest"] == "2Gi"


@pytest.mark.parametrize(
    ("cpu", "resources", "expected"),
    [
        ({}, {}, {"sockets": 1, "cores": 1, "threads": 1, "maxSockets": 4}),
        ({"cores": 2}, {}, {"cores": 2}),
        ({"sockets": 2, "cores": 8}, {}, {"sockets": 2, "cores": 8, "maxSockets": 8}),
        ({"sockets": 10, "cores": 8, "threads": 2}, {}, {"sockets": 10, "cores": 8, "threads": 2, "maxSockets": 32}),
        ({"sockets": 40, "cores": 8, "threads": 2}, {}, {"sockets": 40, "cores": 8, "threads": 2, "maxSockets": 40}),
        ({}, {"requests": {"cpu": "2500m"}}, {"sockets": 3, "cores": 1, "threads": 1, "maxSockets": 12}),
        ({"maxSockets": 2}, {}, {"sockets": 1, "cores": 1, "threads": 1, "maxSockets": 2}),
    ],
)
def test_processors(cpu: dict[str, Any], resources: dict[str, Any], expected: dict[str, Any]) -> None:
    assert domain_of({"cpu": cpu, "resources": resources})["cpu"] == {**expected, "model": "host-model"}


def test_sockets_the_installation_allows() -> None:
    assert domain_of({}, liveUpdateConfiguration={"maxCpuSockets": 6})["cpu"]["maxSockets"] == 6
    assert "maxSockets" not in domain_of({}, vmRolloutStrategy="Stage")["cpu"]


def test_requests() -> None:
    assert domain_of({})["resources"] == {}
    assert domain_of({"resources": {"limits": {"cpu": "2000m"}}})["resources"]["requests"] == {"cpu": "2"}
    assert domain_of({}, cpuRequest="300m")["resources"] == {"requests": {"cpu": "300m"}}
    assert domain_of({}, cpuRequest="100m")["resources"] == {}
    assert domain_of({"cpu": {"dedicatedCpuPlacement": True}}, cpuRequest="300m")["resources"] == {}


def test_architectures() -> None:
    arm = defaulted({}, {"architecture": "arm64"})["spec"]["domain"]
    assert arm["machine"] == {"type": "virt"}
    assert arm["cpu"] == {"sockets": 1, "cores": 1, "threads": 1, "model": "host-passthrough"}
    assert arm["firmware"]["bootloader"] == {"efi": {"secureBoot": False}}
    own = defaulted({"firmware": {"bootloader": {"efi": {}}}}, {"architecture": "arm64"})["spec"]["domain"]
    assert own["firmware"]["bootloader"] == {"efi": {"secureBoot": False}}, "there is no other one"
    bios = defaulted({"firmware": {"bootloader": {"bios": {}}}}, {"architecture": "arm64"})["spec"]["domain"]
    assert bios["firmware"]["bootloader"] == {"bios": {}}, "whether that can be is for validation to say"
    mainframe = defaulted({}, {"architecture": "s390x"})["spec"]["domain"]
    assert mainframe["machine"] == {"type": "s390-ccw-virtio"}
    assert mainframe["features"] == {"acpi": {"enabled": False}}


def test_features() -> None:
    features = {
        "apic": {},
        "smm": {},
        "pvspinlock": {"enabled": False},
        "hyperv": {"synictimer": {"direct": {}}, "spinlocks": {}, "ipi": {"enabled": False}, "evmcs": {}},
    }
    domain = domain_of(
        {"features": features, "clock": {"timer": {"hyperv": {}}}, "cpu": {"features": [{"name": "aes"}]}}
    )
    on = {"enabled": True}
    assert domain["features"] == {
        "acpi": on,
        "apic": on,
        "smm": on,
        "pvspinlock": {"enabled": False},
        "hyperv": {
            "synictimer": {"enabled": True, "direct": on},
            "spinlocks": {"enabled": True, "spinlocks": 4096},
            "ipi": {"enabled": False},
            "evmcs": on,
            "vapic": on,
            "synic": on,
            "vpindex": on,
        },
    }
    assert domain["clock"] == {"timer": {"hyperv": {"present": True}}}
    assert domain["cpu"]["features"] == [{"name": "aes"}, {"name": "vmx", "policy": "require"}]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5", "500m"),
        (2, "2"),
        (1000, "1k"),
        ("64M", "64M"),
        ("1e3", "1e3"),
        ("100e3", "100e3"),
        ("0", "0"),
        ("-1", "-1"),
        ("1500m", "1500m"),
    ],
)
def test_quantities_are_written_as_kubernetes_does(written: Any, expected: str) -> None:
    assert canonical(written) == expected


def test_parts_of_features() -> None:
    hyperv = {"tlbflush": {"direct": {}, "extended": {"enabled": False}}, "synictimer": {"direct": {}}}
    found = domain_of({"features": {"hyperv": hyperv}})["features"]["hyperv"]
    assert found["tlbflush"] == {"enabled": True, "direct": {"enabled": True}, "extended": {"enabled": False}}
    assert found["synictimer"] == {"enabled": True, "direct": {"enabled": True}}
    gpu = {"name": "gpu", "deviceName": "example.org/gpu", "virtualGPUOptions": {"display": {"ramFB": {}}}}
    (made,) = domain_of({"devices": {"gpus": [gpu]}})["devices"]["gpus"]
    assert made["virtualGPUOptions"] == {"display": {"ramFB": {"enabled": True}}}
