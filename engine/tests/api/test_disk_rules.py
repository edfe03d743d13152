# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused of disks, volumes and filesystems: all causes, with their types and fields, in their order."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.configuration import ClusterConfiguration
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.feature_gates import DEFAULT_GATES
from turtles.api.kind import Context
from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.rules import volumes
from turtles.api.kinds.vmi.validation import validate, warn
from turtles.api.language import INVALID, NOT_FOUND, NOT_SUPPORTED, REQUIRED

from .objects import put, talk_vm, talk_vmi, twice

DISKS = "spec.domain.devices.disks"
#: Where clients of KubeVirt find some causes about disks.
TWICE = f"{DISKS}.domain.devices.disks"
FILESYSTEMS = "spec.domain.devices.filesystems"
CLAIM = {"persistentVolumeClaim": {"claimName": "data"}}
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def gates(*on: str, off: tuple[str, ...] = ()) -> Context:
    return Context(config=ClusterConfiguration(feature_gates=(DEFAULT_GATES | set(on)) - set(off)))


def causes(obj: dict[str, Any], context: Context = Context()) -> list[tuple[str, str, str]]:  # noqa: B008
    return [(cause.type, cause.message, cause.field) for cause in validate(default(obj, context), context)]


def with_disk(disk: dict[str, Any], source: dict[str, Any] | None = None) -> dict[str, Any]:
    """Give a machine with one more disk, and its volume unless there is none of that name."""
    vmi = talk_vmi()
    vmi["spec"]["domain"]["devices"]["disks"].append({"name": "more", **disk})
    if source is not None:
        vmi["spec"]["volumes"].append({"name": "more", **source})
    return vmi


def with_volume(*sources: dict[str, Any]) -> dict[str, Any]:
    """Give a machine with more volumes."""
    vmi = talk_vmi()
    vmi["spec"]["volumes"] += [{"name": f"more{index}", **source} for index, source in enumerate(sources)]
    return vmi


def shared(source: dict[str, Any], name: str = "more") -> dict[str, Any]:
    """Give a machine with a filesystem."""
    vmi = talk_vmi()
    vmi["spec"]["volumes"].append({"name": name, **source})
    vmi["spec"]["domain"]["devices"]["filesystems"] = [{"name": name, "virtiofs": {}}]
    return vmi


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (
            {"disk": {"bus": "virtio"}, "serial": "a_B.1+-", "cache": "none", "io": "native", "errorPolicy": "report"},
            [],
        ),
        ({"disk": {"bus": "virtio"}, "cache": "directsync", "io": "native"}, []),
        ({"lun": {"bus": "scsi"}}, []),
        ({"disk": {"bus": "virtio", "readonly": True, "pciAddress": "0000:81:01.0"}}, []),
        ({"disk": {"bus": "virtio"}, "dedicatedIOThread": True, "tag": "any tag"}, []),
        ({"disk": {"bus": "sata"}, "dedicatedIOThread": False}, []),
        ({"disk": {"bus": "virtio"}, "blockSize": {"custom": {"logical": 4096, "physical": 4096}}}, []),
        ({"disk": {"bus": "sata"}, "blockSize": {"custom": {"logical": 512, "physical": 4096}}}, []),
        ({"disk": {"bus": "virtio"}, "blockSize": {"matchVolume": {}}}, []),
        (
            {"disk": {}, "lun": {}},
            [(INVALID, f"{DISKS}[2] can only have a single target type defined", f"{DISKS}[2]")],
        ),
        ({"disk": {"bus": "ide"}}, [(INVALID, "IDE bus is not supported", f"{DISKS}[2].disk.bus")]),
        ({"lun": {"bus": "ide"}}, [(INVALID, "IDE bus is not supported", f"{DISKS}[2].lun.bus")]),
        (
            {"cdrom": {"bus": "virtio"}},
            [(INVALID, "Bus type virtio is invalid for CD-ROM device", f"{DISKS}[2].cdrom.bus")],
        ),
        (
            {"disk": {"readonly": True}},
            [(INVALID, "sata hard-disks do not support read-only.", f"{DISKS}[2].disk.bus")],
        ),
        (
            {"disk": {"bus": "isa"}},
            [
                (
                    INVALID,
                    f"{DISKS}[2] is set with an unrecognized bus isa, must be one of: [virtio scsi sata usb]",
                    f"{DISKS}[2].disk.bus",
                )
            ],
        ),
        (
            {"disk": {"bus": "scsi"}, "dedicatedIOThread": True},
            [(NOT_SUPPORTED, "IOThreads are not supported for disks on a scsi bus", f"{TWICE}[2]")],
        ),
        (
            {"disk": {"bus": "scsi", "pciAddress": "0000:81:01.0"}},
            [
                (
                    INVALID,
                    f"disk {TWICE}.disk[2].name - setting a PCI address is only possible with bus type virtio.",
                    f"{TWICE}.disk[2].pciAddress",
                )
            ],
        ),
        (
            {"disk": {"bus": "virtio", "pciAddress": "0000:80.10.1"}},
            [
                (
                    INVALID,
                    f"disk {TWICE}.disk[2].name has malformed PCI address (0000:80.10.1).",
                    f"{TWICE}.disk[2].pciAddress",
                )
            ],
        ),
        (
            {"bootOrder": 0},
            [(INVALID, f"{DISKS}[2] must have a boot order > 0, if supplied", f"{DISKS}[2].bootOrder")],
        ),
        (
            {"serial": "$$$$"},
            [
                (
                    INVALID,
                    f"{DISKS}[2] must be made up of the following characters [A-Za-z0-9_.+-], if specified",
                    f"{DISKS}[2].serial",
                )
            ],
        ),
        (
            {"serial": "1" * 257},
            [(INVALID, f"{DISKS}[2] must be less than or equal to 256 in length, if specified", f"{DISKS}[2].serial")],
        ),
        ({"cache": "unsafe"}, [(INVALID, f"{DISKS}[2].cache has invalid value unsafe", f"{DISKS}[2].cache")]),
        (
            {"io": "default"},
            [
                (
                    NOT_SUPPORTED,
                    f"Disk IO mode for {DISKS} is not supported. Supported modes are: native, threads.",
                    f"{TWICE}[2].io",
                )
            ],
        ),
        (
            {"errorPolicy": ""},
            [(INVALID, f'{DISKS}[2].errorPolicy has invalid value ""', f"{DISKS}[2].errorPolicy")],
        ),
        (
            {"disk": {"bus": "virtio"}, "blockSize": {"custom": {"logical": 512, "physical": 512}, "matchVolume": {}}},
            [(INVALID, "Block size matching can't be enabled together with a custom value", f"{DISKS}[2].blockSize")],
        ),
        (
            {"disk": {"bus": "virtio"}, "blockSize": {"custom": {"logical": 1024, "physical": 512}}},
            [
                (
                    INVALID,
                    "Logical size 1024 must be the same or less than the physical size of 512",
                    f"{DISKS}[2].blockSize.custom.logical",
                )
            ],
        ),
        (
            {"blockSize": {"custom": {"logical": 4096, "physical": 4096}}},
            [(INVALID, "Logical size 4096 must be 512 for SATA devices", f"{DISKS}[2].blockSize.custom.logical")],
        ),
        (
            {
                "disk": {"bus": "virtio"},
                "blockSize": {"custom": {"logical": 4096, "physical": 4096, "discardGranularity": 5000}},
            },
            [
                (
                    INVALID,
                    "Discard granularity 5000 must be multiples of logical size 4096",
                    f"{DISKS}[2].blockSize.custom.discardGranularity",
                )
            ],
        ),
        (
            {"disk": {"bus": "virtio"}, "blockSize": {"custom": {"logical": 128, "physical": 1234}}},
            [
                (
                    INVALID,
                    "Provided size of 128 is less than the supported minimum size of 512",
                    f"{DISKS}[2].blockSize.custom.logical",
                ),
                (INVALID, "Provided size of 1234 is not a power of 2", f"{DISKS}[2].blockSize.custom.physical"),
            ],
        ),
        (
            {"disk": {"bus": "virtio"}, "blockSize": {"custom": {"logical": 512, "physical": 2**22}}},
            [
                (
                    INVALID,
                    "Provided size of 4194304 is greater than the supported maximum size of 2097152",
                    f"{DISKS}[2].blockSize.custom.physical",
                )
            ],
        ),
    ],
)
def test_disk(disk, expected):
    assert causes(with_disk(disk, CLAIM)) == twice(expected)


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (
            {"lun": {"bus": "scsi", "reservation": True}},
            (INVALID, "persistent reservation is not enabled in kubevirt config", f"{DISKS}.luns.reservation"),
        ),
    ],
)
def test_disk_that_is_refused_once(disk, expected):
    assert causes(with_disk(disk, CLAIM)) == [expected]


def test_changed_block_tracking_has_no_effect():
    vmi = with_disk({"disk": {}, "changedBlockTracking": True}, CLAIM)
    assert causes(vmi) == []
    assert warn(vmi) == [f"{DISKS}[2].changedBlockTracking has no effect in this engine"]
    vmi["spec"]["domain"]["devices"]["disks"][2]["changedBlockTracking"] = False
    assert warn(vmi) == []


def test_reservations_are_of_scsi_devices():
    found = causes(with_disk({"lun": {"bus": "sata", "reservation": True}}, CLAIM))
    words = (INVALID, "Persistent reservation requires a SCSI bus, but sata was specified", f"{DISKS}[2].lun.bus")
    assert words in found


RESERVATIONS = {"persistentReservationConfiguration": {"enabled": True}}


@pytest.mark.parametrize(
    "context",
    [
        gates("PersistentReservation"),
        Context(config=from_kubevirt({"spec": {"configuration": RESERVATIONS}})),
    ],
)
def test_reservations_are_switched_on(context):
    assert causes(with_disk({"lun": {"bus": "scsi", "reservation": True}}, CLAIM), context) == []


@pytest.mark.parametrize(
    ("name", "problems"),
    [("a.b", ["must not contain dots"]), ("A", [LABEL]), ("a" * 64, ["must be no more than 63 characters"])],
)
def test_name_of_a_disk(name, problems):
    vmi = with_disk({"name": name}, {"name": name, **CLAIM})
    assert causes(vmi) == twice([(INVALID, problem, f"{TWICE}[2].name") for problem in problems])


def test_disks_with_one_name():
    vmi = with_disk({}, CLAIM)
    disks = vmi["spec"]["domain"]["devices"]["disks"]
    disks += [{"name": "more"}, {"name": "more"}]
    message = f"{DISKS}[{{}}] and {DISKS}[{{}}] must not have the same Name."
    pairs = ((3, 2), (4, 2), (4, 3))
    assert causes(vmi) == twice([(INVALID, message.format(*pair), f"{DISKS}[{pair[0]}].name") for pair in pairs])


@pytest.mark.parametrize("target", ["disk", "lun"])
def test_disk_without_volume(target):
    expected = [(INVALID, f"{DISKS}[2].Name 'more' not found.", f"{DISKS}[2].name")]
    assert causes(with_disk({target: {}})) == expected


def test_empty_drive():
    assert causes(with_disk({"cdrom": {}})) == []
    message = "DeclarativeHotplugVolumes feature gate not enabled, cannot define an empty CD-ROM disk"
    off = gates(off=("DeclarativeHotplugVolumes",))
    assert causes(with_disk({"cdrom": {}}), off) == [(INVALID, message, f"{DISKS}[2].name")]


def test_lun_has_to_be_a_claim():
    message = f"{DISKS}[2].lun can only be mapped to a DataVolume or PersistentVolumeClaim volume."
    found = causes(with_disk({"lun": {"bus": "scsi"}}, {"emptyDisk": {"capacity": "1Gi"}}))
    assert found == [(INVALID, message, f"{DISKS}[2].lun")]
    assert causes(with_disk({"lun": {"bus": "scsi"}}, {"dataVolume": {"name": "data"}})) == []


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"disk": {"bus": "virtio"}}, []),
        (
            {"disk": {"bus": "sata"}},
            [
                (
                    INVALID,
                    f"DownwardMetrics volume must be mapped to virtio bus, but {DISKS}[2].disk.bus is set to sata",
                    f"{DISKS}[2].disk.bus",
                )
            ],
        ),
        (
            {"cdrom": {}},
            [
                (
                    REQUIRED,
                    f"DownwardMetrics volume must be mapped to a disk, but disk is not set on {DISKS}[2].disk.",
                    f"{DISKS}[2].disk",
                )
            ],
        ),
    ],
)
def test_downward_metrics(device, expected):
    assert causes(with_disk(device, {"downwardMetrics": {}}), gates("DownwardMetrics")) == expected
    message = "downwardMetrics disks are not allowed: DownwardMetrics feature gate is not enabled."
    assert causes(with_disk(device, {"downwardMetrics": {}})) == [*expected, (INVALID, message, "spec.volumes[2]")]


@pytest.mark.parametrize(
    ("name", "volume", "messages"),
    [
        ("a", "a", []),
        ("a", None, []),
        ("", "b", []),
        (
            "a",
            "b",
            ['spec.serviceAccountName "a" and serviceAccount volume "b" must refer'],
        ),
        ("A", None, ["spec.template.spec.serviceAccountName is not a valid service account name: "]),
    ],
)
def test_account_of_the_pod(name, volume, messages):
    path, spec = "spec.template.spec", {"serviceAccountName": name, "volumes": []}
    if volume is not None:
        spec["volumes"].append({"name": "account", "serviceAccount": {"serviceAccountName": volume}})
    found = [cause for rule in volumes.LAST for cause in rule(spec, path, ClusterConfiguration())]
    assert [cause.message[: len(message)] for cause, message in zip(found, messages, strict=True)] == messages
    assert {cause.field for cause in found} <= {f"{path}.serviceAccountName"}


def test_a_path_in_an_image():
    source = {"containerDisk": {"image": "a", "path": "/"}}
    message = "containerDisk must not point to root"
    assert causes(with_volume(source)) == twice([(INVALID, f"{V}.{message}", f"{V}.containerDisk")])
    source["containerDisk"]["path"] = "a/b"
    message = "containerDisk must be an absolute path to a file without relative components"
    assert causes(with_volume(source)) == twice([(INVALID, f"{V}.{message}", f"{V}.containerDisk")])


def test_utility_volumes_come_later():
    vmi = put(talk_vmi(), "spec.utilityVolumes", [{"name": "dump", "claimName": "data", "type": "MemoryDump"}])
    message = "cannot create VMI with utility volumes in spec, utility volumes can only be added via hotplug"
    assert causes(vmi) == [(INVALID, message, "spec.utilityVolumes")]


def test_boot_order_is_unique():
    vmi = put(with_disk({"bootOrder": 1}, CLAIM), f"{DISKS}.0.bootOrder", 1)
    vmi = put(vmi, "spec.domain.devices.interfaces.0.bootOrder", 1)
    message = "Boot order for {} already set for a different device."
    fields = (f"{DISKS}[2].bootOrder", "spec.domain.devices.interfaces[0].bootOrder")
    assert causes(vmi) == [(INVALID, message.format(field), field) for field in fields]
    vmi = put(talk_vmi(), "spec.domain.devices.interfaces.0.bootOrder", 0)
    message = "spec[0] must have a boot order > 0, if supplied"
    assert causes(vmi) == [(INVALID, message, "spec[0].bootOrder")]


V = "spec.volumes[2]"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}}, []),
        ({"dataVolume": {"name": "data", "hotpluggable": True}}, []),
        ({"configMap": {"name": "a", "volumeLabel": "cfgdata", "optional": True}}, []),
        ({"secret": {"secretName": "a"}}, []),
        ({"serviceAccount": {"serviceAccountName": "default"}}, []),
        ({"downwardAPI": {"fields": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}, []),
        ({"sysprep": {"secret": {"name": "answers"}}}, []),
        ({"memoryDump": {"claimName": "dump", "hotpluggable": True}}, []),
        ({}, [(INVALID, f"{V} must have exactly one source type set", V)]),
        ({**CLAIM, "secret": {"secretName": "a"}}, [(INVALID, f"{V} must have exactly one source type set", V)]),
        ({"dataVolume": {"name": ""}}, [(REQUIRED, "DataVolume 'name' must be set", f"{V}.name")]),
        ({"configMap": {}}, [(INVALID, f"{V}.configMap.name is a required field", f"{V}.configMap.name")]),
        ({"secret": {}}, [(INVALID, f"{V}.secret.secretName is a required field", f"{V}.secret.secretName")]),
        (
            {"serviceAccount": {}},
            [
                (
                    INVALID,
                    f"{V}.serviceAccount.serviceAccountName is a required field",
                    f"{V}.serviceAccount.serviceAccountName",
                )
            ],
        ),
        (
            {"hostDisk": {"path": "/disk.img", "type": "Disk"}},
            [(INVALID, "HostDisk feature gate is not enabled", V)],
        ),
        (
            {"cloudInitConfigDrive": {"networkDataBase64": "#"}},
            [
                (
                    INVALID,
                    f"{V}.cloudInitConfigDrive.networkDataBase64.cloudInitConfigDrive.networkDataBase64 is not a valid "
                    "base64 value.",
                    f"{V}.cloudInitConfigDrive.networkDataBase64",
                )
            ],
        ),
    ],
)
def test_volume(source, expected):
    assert causes(with_volume(source)) == expected


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"configMap": {"name": "a", "volumeLabel": "a\nb"}}, "configMap.volumeLabel"),
        ({"downwardAPI": {"fields": [{"path": "../a", "fieldRef": {"fieldPath": "a"}}]}}, "downwardAPI.fields[0].path"),
        ({"downwardAPI": {"fields": [{"path": "/a", "fieldRef": {"fieldPath": "a"}}]}}, "downwardAPI.fields[0].path"),
        ({"emptyDisk": {"capacity": "-1Gi"}}, "emptyDisk.capacity"),
        ({"hostDisk": {"path": "/a/../b", "type": "Disk"}}, "hostDisk.path"),
        ({"hostDisk": {"path": "a", "type": "Disk"}}, "hostDisk.path"),
        ({"hostDisk": {"path": "/a\0b", "type": "Disk"}}, "hostDisk.path"),
        ({"hostDisk": {"path": "/a", "type": "DiskOrCreate", "capacity": "-1"}}, "hostDisk.capacity"),
        ({"containerDisk": {"image": "a", "path": "/a\nb"}}, "containerDisk"),
    ],
)
def test_hostile_values(source, field):
    assert {cause[2] for cause in causes(with_volume(source), gates("HostDisk"))} == {f"{V}.{field}"}


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ({"path": "/disk.img", "type": "Disk"}, []),
        ({"path": "/disk.img", "type": "DiskOrCreate", "capacity": "1Gi"}, []),
        (
            {"path": "", "type": "Disk"},
            [(NOT_FOUND, f"{V}.hostDisk.path is required for hostDisk volume", f"{V}.hostDisk.path")],
        ),
        (
            {"path": "/disk.img", "type": "fakeType"},
            [
                (
                    INVALID,
                    f"{V}.hostDisk.type has invalid value 'fakeType', allowed are 'Disk' or 'DiskOrCreate'",
                    f"{V}.hostDisk.type",
                )
            ],
        ),
        (
            {"path": "/disk.img", "type": "Disk", "capacity": "1Gi"},
            [
                (
                    INVALID,
                    f"{V}.hostDisk.capacity is allowed to pass only with {V}.hostDisk.type equal to 'DiskOrCreate'",
                    f"{V}.hostDisk.capacity",
                )
            ],
        ),
    ],
)
def test_host_disk(disk, expected):
    assert causes(with_volume({"hostDisk": disk}), gates("HostDisk")) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"serviceAccount": {"serviceAccountName": "a"}}, "serviceAccount volume"),
        ({"memoryDump": {"claimName": "a"}}, "memory dump volume"),
    ],
)
def test_only_one(source, words):
    expected = [(INVALID, f"spec.volumes must have max one {words} set", "spec.volumes")]
    assert causes(with_volume(source, source)) == expected


@pytest.mark.parametrize(
    "source",
    [
        {"configMap": {"name": "a"}},
        {"secret": {"secretName": "a"}},
        {"serviceAccount": {"serviceAccountName": "a"}},
        {"downwardAPI": {"fields": []}},
    ],
)
def test_filesystem(source):
    assert causes(shared(source)) == []


@pytest.mark.parametrize("source", [CLAIM, {"dataVolume": {"name": "a"}}])
def test_filesystem_on_a_claim(source):
    message = "virtiofs is not allowed: virtiofs feature gate is not enabled for PVC"
    assert causes(shared(source)) == [(INVALID, message, FILESYSTEMS)]
    assert causes(shared(source), gates("EnableVirtioFsStorageVolumes")) == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/var/run/secrets/token", None),
        ("/var/run/secrets/../../etc", "path"),
        ("etc", "path"),
        ("/proc/1", "path"),
        ("/run/kubevirt-private/x", "path"),
    ],
)
def test_path_of_the_pod(path, field):
    found = causes(shared({"containerPath": {"path": path}}))
    assert [cause[2] for cause in found] == ([f"{V}.containerPath.{field}"] if field else [])


def test_directory_of_the_pod_is_a_filesystem():
    here, words = "spec.domain.volumes[2]", "ContainerPath volume 'more'"
    needs = f"{words} must have a matching filesystem defined in spec.domain.devices.filesystems"
    disk = (INVALID, f"{words} must be mapped to a filesystem, not a disk", here)
    vmi = with_volume()
    vmi["spec"]["volumes"].append({"name": "more", "containerPath": {"path": "/var/run/libvirt/x"}})
    assert causes(vmi) == [
        disk,
        (INVALID, needs, here),
        (INVALID, f"{words} uses reserved path prefix '/var/run/libvirt'", f"{here}.containerPath.path"),
    ]
    vmi = shared({"containerPath": {"path": "/var/run/secrets"}})
    vmi["spec"]["domain"]["devices"]["disks"].append({"name": "more"})
    assert causes(vmi) == [disk]


def test_template_has_the_causes_that_its_instance_would_have():
    vm = talk_vm()
    spec = vm["spec"]["template"]["spec"]
    spec["volumes"].append({"name": "Bad", **CLAIM})
    spec["domain"]["devices"]["disks"][0] = {"name": "containerdisk", "disk": {"readonly": True, "bus": "sata"}}
    where = "spec.template.spec.domain.devices.disks"
    assert [(cause.message, cause.field) for cause in vms.validate(vm)] == [
        ("sata hard-disks do not support read-only.", f"{where}[0].disk.bus"),
        (LABEL, f"{where}.domain.devices.disks[2].name"),
    ]


@pytest.mark.parametrize(
    "disk",
    [
        {"disk": {"readonly": True}},
        {"disk": {}, "dedicatedIOThread": True},
        {"disk": {}, "blockSize": {"custom": {"logical": 4096, "physical": 4096}}},
    ],
)
def test_template_leaves_buses_to_its_instances(disk):
    vm = talk_vm()
    vm["spec"]["template"]["spec"]["domain"]["devices"]["disks"][0] = {"name": "containerdisk", **disk}
    assert vms.validate(vm) == []


def test_template_may_have_utility_volumes():
    volumes = [{"name": "dump", "claimName": "data", "type": "MemoryDump"}]
    assert vms.validate(put(talk_vm(), "spec.template.spec.utilityVolumes", volumes)) == []


@pytest.mark.parametrize(
    ("architecture", "bus"), [("amd64", "sata"), ("arm64", "virtio"), ("s390x", "virtio"), (None, "sata")]
)
def test_default_bus(architecture, bus):
    vmi = talk_vmi()
    vmi["spec"]["architecture"] = architecture
    vmi["spec"]["domain"]["devices"]["disks"] = [
        {"name": "a", "disk": {}},
        {"name": "b", "cdrom": {}},
        {"name": "c", "lun": {}},
        {"name": "d"},
        {"name": "e", "disk": {"bus": "scsi"}},
    ]
    disks = default(vmi)["spec"]["domain"]["devices"]["disks"]
    assert disks[:5] == [
        {"name": "a", "disk": {"bus": bus}},
        {"name": "b", "cdrom": {"bus": bus, "readonly": True, "tray": "closed"}},
        {"name": "c", "lun": {"bus": bus}},
        {"name": "d", "disk": {"bus": bus}},
        {"name": "e", "disk": {"bus": "scsi"}},
    ]


def test_filesystems_get_no_disks():
    spec = default(shared({"secret": {"secretName": "a"}}))["spec"]
    assert [disk["name"] for disk in spec["domain"]["devices"]["disks"]] == ["containerdisk", "cloudinitdisk"]


def test_matching_block_sizes_are_on_by_default():
    spec = default(with_disk({"blockSize": {"matchVolume": {}}}, CLAIM))["spec"]
    assert spec["domain"]["devices"]["disks"][2]["blockSize"] == {"matchVolume": {"enabled": True}}


@pytest.mark.parametrize(("capacity", "expected"), [(None, "0"), ("1Gi", "1Gi")])
def test_capacity_of_a_file_of_the_node(capacity, expected):
    source = {"path": "/disk.img", "type": "DiskOrCreate", **({} if capacity is None else {"capacity": capacity})}
    found = default(with_volume({"hostDisk": source}))["spec"]["volumes"][2]
    assert found["hostDisk"]["capacity"] == expected
    assert causes(with_volume({"hostDisk": source}), gates("HostDisk")) == []
