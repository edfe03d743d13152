# SPDX-License-Identifier: GPL-3.0-or-later
"""What KubeVirt admits though no guest can start with it: admitted with a warning, and without a Pod."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.configuration import DEFAULT
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import Context
from turtles.api.kinds import pool, replicaset
from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.validation import futile_causes, validate, validate_update, warn
from turtles.controller.pod.obstacles import obstacles

from .objects import put, talk_vm, talk_vmi

DEVICES = "spec.domain.devices"
NIC = f"{DEVICES}.interfaces.0"
SOURCE = "spec.volumes.0.containerDisk"
HYPERV = "spec.domain.features.hyperv"
WARNING = "; this is admitted, and never started"

GATES = ("PersistentReservation", "RebootPolicy", "WorkloadEncryptionTDX", "EnableVirtioFsStorageVolumes")
CONTEXT = Context(from_kubevirt({"spec": {"configuration": {"developerConfiguration": {"featureGates": [*GATES]}}}}))


def volume(source: dict[str, Any]) -> dict[str, Any]:
    return {
        "spec.volumes.0": {"name": "more", **source},
        f"{DEVICES}.disks.0": {"name": "more", "disk": {"bus": "virtio"}},
    }


def filesystem(*sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "spec.volumes": [{"name": "more", **source} for source in sources],
        f"{DEVICES}.disks": [],
        f"{DEVICES}.filesystems": [{"name": "more", "virtiofs": {}}],
        **more,
    }


def options(**wanted: Any) -> dict[str, Any]:
    return {NIC: {"name": "default", "masquerade": {}, "dhcpOptions": wanted}}


def nic(**settings: Any) -> dict[str, Any]:
    return {NIC: {"name": "default", "masquerade": {}, **settings}}


CASES = [
    ({"spec.domain.memory": {"guest": "1k"}}, "must be greater than or equal to 1M"),
    ({"spec.domain.cpu": {"features": [{"name": "a/b"}]}}, "must be letters, digits"),
    ({"spec.domain.firmware": {"uuid": "me"}}, "spec.domain.firmware.uuid must be a UUID, if specified"),
    (
        {
            "spec.domain.firmware": {
                "kernelBoot": {"container": {"image": "a", "kernelPath": "/k", "imagePullPolicy": "Often"}}
            }
        },
        "spec.domain.firmware.kernelBoot.container.imagePullPolicy has invalid value Often",
    ),
    ({"spec.domain.clock": {"timezone": "München"}}, "spec.domain.clock.timezone"),
    ({"spec.domain.clock": {"utc": {}, "timer": {"rtc": {"track": "me"}}}}, "has invalid value me"),
    ({"spec.domain.rebootPolicy": "Never"}, "must be one of: [Reboot Terminate]"),
    ({HYPERV: {"vendorid": {"vendorid": "x" * 13}}}, "must be at most 12 characters"),
    ({HYPERV: {"spinlocks": {"spinlocks": 1}}}, "must be at least 4096"),
    (
        {f"{DEVICES}.watchdog": {"name": "dog", "i6300esb": {"action": "bark"}}},
        f"{DEVICES}.watchdog.i6300esb.action has invalid value bark",
    ),
    (
        {
            "spec.accessCredentials": [
                {
                    "userPassword": {
                        "source": {"secret": {"secretName": ""}},
                        "propagationMethod": {"qemuGuestAgent": {}},
                    }
                }
            ]
        },
        "spec.accessCredentials[0].userPassword.source.secret.secretName is a required field",
    ),
    (volume({"sysprep": {}}), "spec.volumes[0].sysprep must have either configMap or secret set"),
    (
        volume({"sysprep": {"secret": {"name": "a"}, "configMap": {"name": "b"}}}),
        "spec.volumes[0].sysprep must have either configMap or secret set",
    ),
    (volume({"ephemeral": {}}), "spec.volumes[0].ephemeral.persistentVolumeClaim is a required field"),
    (volume({"ephemeral": {"persistentVolumeClaim": {"claimName": "a/b"}}}), "persistentVolumeClaim.claimName: "),
    (volume({"persistentVolumeClaim": {"claimName": "../a"}}), "spec.volumes[0].persistentVolumeClaim.claimName: "),
    (volume({"dataVolume": {"name": "../a"}}), "spec.volumes[0].dataVolume.name: "),
    ({"spec.volumes.0": {"name": "containerdisk", "memoryDump": {"claimName": "A"}}}, "memoryDump.claimName: "),
    (volume({"emptyDisk": {"capacity": "1"}}), "must be greater than or equal to 512"),
    (volume({"secret": {"secretName": "a", "volumeLabel": "x" * 33}}), "spec.volumes[0].secret.volumeLabel"),
    (volume({"configMap": {"name": "a", "volumeLabel": "é"}}), "spec.volumes[0].configMap.volumeLabel"),
    ({f"{SOURCE}.image": " "}, "spec.volumes[0].containerDisk.image is a required field"),
    ({f"{SOURCE}.imagePullPolicy": "Often"}, "spec.volumes[0].containerDisk.imagePullPolicy has invalid value Often"),
    (
        {f"{DEVICES}.disks.0": {"name": "containerdisk", "disk": {}, "io": "native", "cache": "writeback"}},
        "io native needs cache none or directsync, not writeback",
    ),
    (
        {f"{DEVICES}.disks.0": {"name": "containerdisk", "cdrom": {"bus": "sata", "tray": "ajar"}}},
        f"{DEVICES}.disks[0].cdrom.tray has invalid value ajar",
    ),
    (
        {
            **volume({"persistentVolumeClaim": {"claimName": "a"}}),
            f"{DEVICES}.disks.0": {"name": "more", "lun": {"bus": "scsi", "reservation": True}},
        },
        f"{DEVICES}.disks[0].lun.reservation is not supported by this engine: its nodes have no pr-helper",
    ),
    (filesystem(), f"{DEVICES}.filesystems[0].name 'more' not found"),
    (filesystem({"containerDisk": {"image": "a"}}), "volume 'more' can't be shared; it has to be one of: "),
    (
        filesystem({"configMap": {"name": "a"}}, **{f"{DEVICES}.disks": [{"name": "more", "disk": {}}]}),
        "volume 'more' can't be a disk and a filesystem",
    ),
    (nic(acpiIndex=-1), f"{DEVICES}.interfaces[0].acpiIndex '-1': must be between 0 and 16383"),
    (options(bootFileName="x" * 256), "bootFileName"),
    ({"spec.networks.0": {"name": "default", "pod": {"vmNetworkCIDR": "10.0.2.1/24"}}}, "must be an IPv4 network"),
    ({"spec.networks.0": {"name": "default", "pod": {"vmIPv6NetworkCIDR": "10.0.2.0/24"}}}, "must be an IPv6 network"),
    (
        {
            f"{DEVICES}.interfaces": [
                {"name": "default", "masquerade": {}, "macAddress": "02:00:00:aa:bb:cc"},
                {"name": "red", "bridge": {}, "macAddress": "02-00-00-AA-BB-CC"},
            ],
            "spec.networks": [{"name": "default", "pod": {}}, {"name": "red", "multus": {"networkName": "red"}}],
        },
        f"{DEVICES}.interfaces[1].macAddress '02-00-00-AA-BB-CC' is the MAC address of interface 'default' already",
    ),
    (
        {
            "spec.domain.launchSecurity": {"tdx": {}},
            "spec.domain.firmware": {"bootloader": {"efi": {"secureBoot": False}}},
        },
        "spec.domain.launchSecurity.tdx is not supported by this engine",
    ),
]


def changed(obj: dict[str, Any], changes: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `obj` with `changes`. What a path passes through is made."""
    for path, value in changes.items():
        keys = f"{prefix}{path.removeprefix('spec.')}".split(".") if prefix else path.split(".")
        at: Any = obj
        for key in keys[:-1]:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        put(at, keys[-1], value)
    return obj


@pytest.mark.parametrize(("changes", "message"), CASES)
def test_it_is_admitted_and_never_started(changes: dict[str, Any], message: str) -> None:
    vmi = default(changed(talk_vmi(), changes), CONTEXT)
    assert validate(vmi, CONTEXT) == []
    assert [text for text in warn(vmi) if message in text and text.endswith(WARNING)]
    vmi["metadata"] |= {"namespace": "talk", "name": "talk"}
    assert [text for text in obstacles(vmi, DEFAULT) if message in text]


@pytest.mark.parametrize(("changes", "message"), CASES)
def test_a_template_has_the_warning(changes: dict[str, Any], message: str) -> None:
    where = message.removeprefix("spec.")
    template = changed(talk_vm(), changes, "spec.template.spec.")["spec"]["template"]
    vm = {"spec": {"runStrategy": "Always", "template": template}}
    machines = {"spec": {"virtualMachineTemplate": {"spec": vm["spec"]}}}
    for kind, obj, path in (
        (vms, vm, "spec.template.spec"),
        (replicaset, {"spec": {"template": template}}, "spec.template.spec"),
        (pool, machines, "spec.virtualMachineTemplate.spec.template.spec"),
    ):
        found = [text for text in kind.warn(obj) if where in text and text.endswith(WARNING)]
        assert found, kind
        assert all(path in text for text in found)


def test_a_running_machine_gets_no_such_disk() -> None:
    """The engine itself adds disks to a running machine: there, nothing would be left to tell its user."""
    old = default(talk_vmi())
    new = put(default(talk_vmi()), "spec.volumes.1", {"name": "cloudinitdisk", "emptyDisk": {"capacity": "1"}})
    found = validate_update(new, old, Context(privileged=True))
    assert [cause for cause in found if "must be greater than or equal to 512" in cause.message]


@pytest.mark.parametrize(
    "annotation",
    ['[{"image": "registry.example/hook:1"}]', "[{'args': ['--version', 'v1alpha2'], 'image': 'a'}]", "x"],
)
def test_hook_sidecars_are_read_when_the_pod_is_made(annotation: str) -> None:
    context = Context(
        from_kubevirt({"spec": {"configuration": {"developerConfiguration": {"featureGates": ["Sidecar"]}}}})
    )
    vmi = default(talk_vmi(), context)
    vmi["metadata"] |= {"namespace": "talk", "name": "talk"}
    vmi["metadata"]["annotations"] = {"hooks.kubevirt.io/hookSidecars": annotation}
    assert validate(vmi, context) == []
    readable = annotation.startswith('[{"')
    where = "metadata.annotations.hooks.kubevirt.io/hookSidecars is not JSON"
    assert bool([text for text in warn(vmi) if text.startswith(where) and text.endswith(WARNING)]) is not readable
    assert bool([text for text in obstacles(vmi, DEFAULT) if text.startswith(where)]) is not readable


def test_an_ordinary_machine_has_no_such_warning() -> None:
    assert futile_causes(default(talk_vmi())["spec"]) == []
