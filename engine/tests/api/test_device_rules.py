# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes about devices, probes and credentials, as KubeVirt's clients know them, in KubeVirt's order."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.configuration import DEFAULT
from turtles.api.kind import Context
from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.validation import validate

from .objects import put, talk_vm, talk_vmi
from .test_network_rules import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, gates

DEVICES = "spec.domain.devices"


def judge(path: str, value: Any, config: Any = DEFAULT, **spec: Any) -> list[tuple[str, str, str]]:
    vmi = put(talk_vmi(), path, value)
    vmi["spec"] |= spec
    context = Context(config=config)
    return [(cause.type, cause.message, cause.field) for cause in validate(default(vmi, context), context)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tpm", {}),
        ("tpm", {"enabled": True, "persistent": True}),
        ("sound", {"name": "card"}),
        ("sound", {"name": "card", "model": "ac97"}),
        *[("video", {"type": kind}) for kind in ("vga", "cirrus", "virtio", "ramfb", "bochs")],
        *[("panicDevices", [{"model": model}]) for model in ("hyperv", "isa", "pvpanic")],
        ("panicDevices", [{}]),
        ("clientPassthrough", {}),
        ("autoattachInputDevice", True),
        ("useVirtioTransitional", True),
        ("networkInterfaceMultiqueue", True),
        ("logSerialConsole", True),
        ("logSerialConsole", False),
        ("gpus", [{"name": "gpu1", "deviceName": "nvidia.com/TU104GL"}]),
        ("inputs", [{"name": "tablet", "type": "tablet", "bus": "virtio"}]),
        ("watchdog", {"name": "dog", "i6300esb": {"action": "poweroff"}}),
    ],
)
def test_accepted(name, value):
    assert judge(f"{DEVICES}.{name}", value) == []


@pytest.mark.parametrize(
    ("name", "value", "causes"),
    [
        (
            "inputs",
            [{"name": "mouse", "type": "mouse", "bus": "ps2"}],
            [
                (INVALID, "Input device can have only virtio or usb bus.", f"{DEVICES}.inputs[0].bus"),
                (INVALID, "Input device can have only tablet type.", f"{DEVICES}.inputs[0].type"),
            ],
        ),
        (
            "sound",
            {"name": "", "model": "sb16"},
            [
                (INVALID, "Sound device type is not supported. Options: 'ich9' or 'ac97'", "spec.Sound"),
                (INVALID, "Sound device requires a name field.", "spec.Sound"),
            ],
        ),
        (
            "video",
            {"type": "qxl"},
            [
                (
                    NOT_SUPPORTED,
                    "video model 'qxl' is not supported on amd64 architecture",
                    f"{DEVICES}.video.type",
                )
            ],
        ),
        (
            "panicDevices",
            [{"model": "pvpanic"}, {"model": "paper"}],
            [(INVALID, "invalid PanicDeviceModel(paper)", f"{DEVICES}.panicDevices[1].model")],
        ),
        (
            "watchdog",
            {"name": "dog", "diag288": {}},
            [(NOT_SUPPORTED, "amd64 only supports I6300ESB watchdog device", f"{DEVICES}.watchdog")],
        ),
        (
            "hostDevices",
            [{"name": "a", "deviceName": "example.org/a"}],
            [(INVALID, "Host Devices feature gate is not enabled in kubevirt-config", "spec.HostDevices")],
        ),
        (
            "autoattachVSOCK",
            True,
            [(INVALID, "VSOCK feature gate is not enabled in kubevirt-config", f"{DEVICES}.autoattachVSOCK")],
        ),
        (
            "downwardMetrics",
            {},
            [
                (
                    INVALID,
                    "downwardMetrics virtio serial is not allowed: DownwardMetrics feature gate is not enabled",
                    f"{DEVICES}.downwardMetrics",
                )
            ],
        ),
        (
            "gpus",
            [
                {"name": name, "deviceName": "example.org/gpu", "virtualGPUOptions": {"display": display}}
                for name, display in (("a", {}), ("b", {"ramFB": {}}))
            ],
            [(INVALID, "configuring multiple displays with ramfb is not valid ", "spec.GPUs")],
        ),
        (
            "gpus",
            [{"name": "a"}],
            [
                (
                    REQUIRED,
                    "vmi.spec.domain.devices.gpus contains GPUs without deviceName or claimRequest; each GPU must "
                    "specify either a deviceName or a claimRequest",
                    f"{DEVICES}.gpus",
                )
            ],
        ),
        (
            "gpus",
            [{"name": "a", "deviceName": "example.org/gpu", "claimName": "c"}],
            [
                (
                    INVALID,
                    "vmi.spec.domain.devices.gpus contains GPUs with both deviceName and claimRequest",
                    f"{DEVICES}.gpus",
                )
            ],
        ),
        (
            "gpus",
            [{"name": "a", "deviceName": "example.org/gpu"}, {"name": "b", "claimName": "c"}],
            [
                (
                    INVALID,
                    "vmi.spec.domain.devices.gpus contains both DRA and non-DRA GPUs; each GPU must be either DRA or "
                    "non-DRA",
                    f"{DEVICES}.gpus",
                )
            ],
        ),
        (
            "gpus",
            [
                {"name": "a", "claimName": "c", "requestName": "r"},
                {"name": "b", "claimName": "c", "requestName": "r"},
                {"name": "d", "claimName": "c"},
            ],
            [
                (REQUIRED, "requestName is required for DRA GPU", f"{DEVICES}.gpus[2].requestName"),
                (DUPLICATE, 'duplicate claimName/requestName pair "c/r"', f"{DEVICES}.gpus[1]"),
                (
                    INVALID,
                    "vmi.spec.resourceClaims must specify all claims used in vmi.spec.domain.devices.gpus and "
                    "vmi.spec.domain.devices.hostDevices",
                    "spec.resourceClaims",
                ),
            ],
        ),
    ],
)
def test_refused(name, value, causes):
    assert judge(f"{DEVICES}.{name}", value) == causes


def test_gates_open_the_way():
    config = gates("HostDevices", "VSOCK", "DownwardMetrics")
    assert judge(f"{DEVICES}.hostDevices", [{"name": "a", "deviceName": "example.org/a"}], config) == []
    assert judge(f"{DEVICES}.autoattachVSOCK", True, config) == []
    assert judge(f"{DEVICES}.downwardMetrics", {}, config) == []
    claim = [{"name": "gpu", "resourceClaimTemplateName": "t"}]
    gpu = [{"name": "a", "claimName": "gpu", "requestName": "r"}]
    assert judge(f"{DEVICES}.gpus", gpu, resourceClaims=claim) == []
    message = "vmi.spec.domain.devices.gpus contains DRA enabled GPUs but feature gate is not enabled"
    causes = judge(f"{DEVICES}.gpus", gpu, gates(off=("GPUsWithDRA",)), resourceClaims=claim)
    assert causes == [(INVALID, message, f"{DEVICES}.gpus")]


def test_a_device_is_claimed_once():
    claim = [{"name": "c", "resourceClaimTemplateName": "t"}]
    device = [{"name": "a", "claimName": "c", "requestName": "r"}]
    vmi = put(put(talk_vmi(), "spec.resourceClaims", claim), f"{DEVICES}.gpus", device)
    vmi = put(vmi, f"{DEVICES}.hostDevices", [{**device[0], "name": "b"}])
    message = 'duplicate claimName/requestName pair "c/r" between GPUs[0] and HostDevices[0]'
    config = gates("HostDevices", "HostDevicesWithDRA", "GPUsWithDRA")
    causes = [cause for cause in validate(default(vmi), Context(config)) if "between" in cause.message]
    assert [cause.message for cause in causes] == [message]


def test_video_needs_graphics():
    vmi = put(talk_vmi(), f"{DEVICES}.autoattachGraphicsDevice", False)
    causes = validate(default(put(vmi, f"{DEVICES}.video", {"type": "vga"})))
    assert [(cause.type, cause.message, cause.field) for cause in causes] == [
        (INVALID, "Video configuration is not allowed when autoattachGraphicsDevice is set to false", "spec.video")
    ]


def test_boot_orders():
    vmi = talk_vmi()
    devices = vmi["spec"]["domain"]["devices"]
    devices["disks"][0]["bootOrder"] = devices["interfaces"][0]["bootOrder"] = 1
    [cause] = validate(default(vmi))
    where = f"{DEVICES}.interfaces[0].bootOrder"
    message = f"Boot order for {where} already set for a different device."
    assert (cause.type, cause.message, cause.field) == (INVALID, message, where)
    devices["interfaces"][0]["bootOrder"] = 0
    [cause] = validate(default(vmi))
    message = "spec[0] must have a boot order > 0, if supplied"
    assert (cause.message, cause.field) == (message, "spec[0].bootOrder")


PROBES = ("readinessProbe", "livenessProbe")


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("probe", "causes"),
    [
        ({"tcpSocket": {"port": 80}}, []),
        ({"httpGet": {"port": "http", "path": "/"}}, []),
        ({"exec": {"command": ["true"]}}, []),
        ({"guestAgentPing": {}}, []),
        (
            {"guestAgentPing": {}, "exec": {"command": ["true"]}},
            [(INVALID, "spec.{name} must have exactly one probe type set", "spec.{name}")],
        ),
        (
            {},
            [
                (
                    REQUIRED,
                    "either spec.{name}.tcpSocket, spec.{name}.exec or spec.{name}.httpGet must be set if a "
                    "spec.{name} is specified",
                    "spec.{name}",
                )
            ],
        ),
    ],
)
def test_probes(name, probe, causes):
    wanted = [(kind, message.format(name=name), field.format(name=name)) for kind, message, field in causes]
    assert judge(f"spec.{name}", probe) == wanted


def test_probes_of_ports_need_the_pod_network():
    vmi = talk_vmi()
    devices = vmi["spec"]["domain"]["devices"]
    del vmi["spec"]["networks"], devices["interfaces"]
    devices["autoattachPodInterface"] = False
    vmi["spec"] |= {"readinessProbe": {"httpGet": {"port": 1}}, "livenessProbe": {"tcpSocket": {"port": 1}}}
    assert [(cause.message, cause.field) for cause in validate(default(vmi))] == [
        (f"{field} is only allowed if the Pod Network is attached", field)
        for field in ("spec.readinessProbe.httpGet", "spec.livenessProbe.tcpSocket")
    ]


SECRET = {"secret": {"secretName": "keys"}}
WHERE = "spec.accessCredentials[0]"


@pytest.mark.parametrize(
    ("credential", "causes"),
    [
        ({"sshPublicKey": {"source": SECRET, "propagationMethod": {"noCloud": {}}}}, []),
        ({"sshPublicKey": {"source": SECRET, "propagationMethod": {"qemuGuestAgent": {"users": ["me"]}}}}, []),
        ({"userPassword": {"source": SECRET, "propagationMethod": {"qemuGuestAgent": {}}}}, []),
        ({}, [(INVALID, f"{WHERE} must have exactly one access credential type set", WHERE)]),
        (
            {"sshPublicKey": {"source": {}, "propagationMethod": {"configDrive": {}, "qemuGuestAgent": {"users": []}}}},
            [
                (
                    INVALID,
                    f"{WHERE} requires a configDrive volume to exist when the configDrive propagationMethod is in use.",
                    f"{WHERE}.sshPublicKey.propagationMethod",
                ),
                (
                    INVALID,
                    f"{WHERE} requires at least one user to be present in the users list",
                    f"{WHERE}.sshPublicKey.propagationMethod.qemuGuestAgent.users",
                ),
                (INVALID, f"{WHERE} must have exactly one source set", f"{WHERE}.sshPublicKey.source"),
                (
                    INVALID,
                    f"{WHERE} must have exactly one propagationMethod set",
                    f"{WHERE}.sshPublicKey.propagationMethod",
                ),
            ],
        ),
        (
            {"userPassword": {"source": {}, "propagationMethod": {}}},
            [
                (INVALID, f"{WHERE} must have exactly one source set", f"{WHERE}.userPassword.source"),
                (
                    INVALID,
                    f"{WHERE} must have exactly one propagationMethod set",
                    f"{WHERE}.userPassword.propagationMethod",
                ),
            ],
        ),
    ],
)
def test_access_credentials(credential, causes):
    assert judge("spec.accessCredentials", [credential]) == causes


def test_a_template_names_its_own_fields():
    vm = put(talk_vm(), "spec.template.spec.domain.devices.sound", {"name": ""})
    vm["spec"]["template"]["spec"]["readinessProbe"] = {}
    assert [cause.field for cause in vms.validate(vm)] == [
        "spec.template.spec.readinessProbe",
        "spec.template.spec.Sound",
    ]


@pytest.mark.parametrize(
    ("architecture", "device", "message"),
    [
        ("arm64", ("watchdog", {"name": "dog"}), "Arm64 not support Watchdog device"),
        ("arm64", ("sound", {"name": "card"}), "Arm64 not support sound device"),
        ("arm64", ("video", {"type": "vga"}), "video model 'vga' is not supported on arm64 architecture"),
        ("s390x", ("video", {"type": "vga"}), "video model 'vga' is not supported on s390x architecture"),
        ("s390x", ("watchdog", {"name": "d", "i6300esb": {}}), "s390x only supports Diag288 watchdog device"),
        ("s390x", ("panicDevices", [{}]), "custom panic devices are not supported on s390x architecture"),
    ],
)
def test_what_other_architectures_lack(architecture, device, message):
    causes = judge(f"{DEVICES}.{device[0]}", device[1], architecture=architecture)
    assert message in [text for _, text, _ in causes]
