# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about processors, memory, firmware, features and placement: each cause with its type, message and field."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import Context
from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.validation import validate
from turtles.api.language import FORBIDDEN, INVALID, NOT_SUPPORTED, REQUIRED, Cause

from .objects import put, talk_vm, talk_vmi

CPU, RESOURCES, MEMORY = "spec.domain.cpu", "spec.domain.resources", "spec.domain.memory"
PAGE = f"{MEMORY}.hugepages.pageSize"
DEDICATED = f"{CPU}.dedicatedCpuPlacement"
NUMA = f"{CPU}.numa.guestMappingPassthrough"
HYPERV = "spec.domain.features.hyperv"
NODE = "spec.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
STAGE = from_kubevirt({"spec": {"configuration": {"vmRolloutStrategy": "Stage"}}})
IGNITION = from_kubevirt(
    {"spec": {"configuration": {"developerConfiguration": {"featureGates": ["ExperimentalIgnitionSupport"]}}}}
)


def causes(changes: dict[str, Any], context: Context | None = None) -> list[Cause]:
    """Return what is wrong with the machine of the talk with these changes, as its admission finds it."""
    context = context or Context()
    vmi = talk_vmi()
    for path, value in changes.items():
        put(vmi, path, value)
    return validate(default(vmi, context), context)


def cpu(**fields: Any) -> dict[str, Any]:
    return {"dedicatedCpuPlacement": True, **fields}


def node(*expressions: dict[str, Any], fields: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    term = {"matchExpressions": list(expressions), "matchFields": fields or []}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def pod(term: dict[str, Any]) -> dict[str, Any]:
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


POD = "spec.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
BAD_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Memory
        (
            {f"{RESOURCES}.limits": {"memory": "-1"}},
            [
                (
                    INVALID,
                    f"{RESOURCES}.limits.memory '-1': must be greater than or equal to 0.",
                    f"{RESOURCES}.limits.memory",
                )
            ],
        ),
        (
            {f"{RESOURCES}.limits": {"memory": "32M"}},
            [
                (
                    INVALID,
                    f"{RESOURCES}.requests.memory '64M' is greater than {RESOURCES}.limits.memory '32M'",
                    f"{RESOURCES}.requests.memory",
                )
            ],
        ),
        (
            {f"{MEMORY}.hugepages": {"pageSize": "big"}},
            [
                (
                    INVALID,
                    f"{PAGE} 'big': quantities must match the regular expression "
                    "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                    PAGE,
                )
            ],
        ),
        (
            {f"{MEMORY}.hugepages": {"pageSize": "1Gi"}},
            [
                (
                    INVALID,
                    f"{RESOURCES}.requests.memory '64M' must be equal to or larger than page size {PAGE} '1Gi'",
                    f"{RESOURCES}.requests.memory",
                )
            ],
        ),
        (
            {f"{MEMORY}.hugepages": {"pageSize": "2Mi"}},
            [
                (
                    INVALID,
                    f"{RESOURCES}.requests.memory '64M' is not a multiple of the page size {PAGE} '2Mi'",
                    f"{RESOURCES}.requests.memory",
                )
            ],
        ),
        ({RESOURCES: {}, MEMORY: {"hugepages": {"pageSize": "2Mi"}}}, []),
        ({RESOURCES: {}, MEMORY: {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}}, []),
        ({f"{RESOURCES}.limits": {"memory": "64M"}, f"{MEMORY}.guest": "1Gi"}, []),
        (
            {RESOURCES: {}},
            [
                (
                    REQUIRED,
                    f"no memory requested, at least one of '{MEMORY}.guest', '{PAGE}' or "
                    f"'{RESOURCES}.requests.memory' must be set",
                    "",
                )
            ],
        ),
        # Processors
        (
            {f"{RESOURCES}.requests.cpu": "-500m", f"{RESOURCES}.limits": {"cpu": -1}},
            [
                (
                    INVALID,
                    f"{RESOURCES}.{kind}.cpu '{value}': must be greater than or equal to 0.",
                    f"{RESOURCES}.{kind}.cpu",
                )
                for kind, value in (("requests", "-500m"), ("limits", "-1"))
            ],
        ),
        (
            {f"{RESOURCES}.requests.cpu": "3000m", f"{RESOURCES}.limits": {"cpu": 2}},
            [
                (
                    INVALID,
                    f"{RESOURCES}.requests.cpu '3' is greater than {RESOURCES}.limits.cpu '2'",
                    f"{RESOURCES}.requests.cpu",
                )
            ],
        ),
        ({CPU: cpu(cores=2)}, []),
        ({CPU: cpu(), f"{RESOURCES}.limits": {"cpu": 2, "memory": "64M"}}, []),
        (
            {CPU: cpu(sockets=1), f"{RESOURCES}.limits": {"memory": "128M"}, f"{RESOURCES}.requests.cpu": "1500m"},
            [
                (INVALID, "provided resources CPU requests must be an interger", f"{RESOURCES}.requests.cpu"),
                (
                    INVALID,
                    f"{RESOURCES}.requests.memory must be equal to {RESOURCES}.limits.memory",
                    f"{RESOURCES}.requests.memory",
                ),
                (
                    INVALID,
                    f"{RESOURCES}.requests.cpu or {RESOURCES}.limits.cpu must not be provided at the same time with "
                    f"{CPU}.cores when DedicatedCPUPlacement is true ",
                    DEDICATED,
                ),
            ],
        ),
        (
            {CPU: cpu(cores=4), f"{RESOURCES}.requests.cpu": 1, f"{RESOURCES}.limits": {"cpu": 4}},
            [
                (
                    INVALID,
                    f"{RESOURCES}.requests.cpu or {RESOURCES}.limits.cpu must be equal when "
                    "DedicatedCPUPlacement is true ",
                    DEDICATED,
                )
            ],
        ),
        (
            {CPU: cpu(threads=3)},
            [
                (
                    INVALID,
                    f"Not more than two threads must be provided at {CPU}.threads (got 3) when "
                    "DedicatedCPUPlacement is true",
                    DEDICATED,
                )
            ],
        ),
        (
            {CPU: {"cores": 1, "numa": {"guestMappingPassthrough": {}}}},
            [
                (INVALID, f"{DEDICATED} must be set to true when NUMA topology strategy is set in {NUMA}", NUMA),
                (INVALID, f"{MEMORY}.hugepages must be requested when NUMA topology strategy is set in {NUMA}", NUMA),
            ],
        ),
        (
            {CPU: {"isolateEmulatorThread": True}},
            [
                (
                    INVALID,
                    "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement",
                    f"{CPU}.isolateEmulatorThread",
                )
            ],
        ),
        (
            {f"{CPU}.features": [{"name": "aes", "policy": "maybe"}]},
            [(NOT_SUPPORTED, "CPU feature aes uses policy maybe that is not supported.", f"{CPU}.features[0].policy")],
        ),
        (
            {CPU: {"sockets": 3, "maxSockets": 2}},
            [
                (
                    INVALID,
                    "Number of sockets in CPU topology is greater than the maximum sockets allowed",
                    f"{CPU}.sockets",
                )
            ],
        ),
        (
            {CPU: {"realtime": {}}},
            [
                (REQUIRED, f"{DEDICATED} must be set to true when {CPU}.realtime is used", DEDICATED),
                (REQUIRED, f"{NUMA} must be defined when {CPU}.realtime is used", NUMA),
            ],
        ),
        (
            {"spec.domain.ioThreadsPolicy": "few"},
            [(INVALID, "Invalid IOThreadsPolicy (few)", "spec.domain.ioThreadsPolicy")],
        ),
        (
            {"spec.domain.ioThreadsPolicy": "supplementalPool"},
            [
                (
                    INVALID,
                    "the number of iothreads needs to be set and positive for the dedicated policy",
                    "spec.domain.ioThreads.count",
                )
            ],
        ),
        # Firmware
        (
            {"spec.domain.firmware.bootloader": {"efi": {"secureBoot": False}, "bios": {}}},
            [
                (
                    INVALID,
                    "spec.domain.firmware.bootloader has both EFI and BIOS configured, but they are "
                    "mutually exclusive.",
                    "spec.domain.firmware.bootloader",
                )
            ],
        ),
        (
            {"spec.domain.firmware.bootloader": {"efi": {}}},
            [
                (
                    INVALID,
                    "spec.domain has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled.",
                    "spec.domain",
                )
            ],
        ),
        ({"spec.domain.firmware.bootloader": {"efi": {}}, "spec.domain.features": {"smm": {}}}, []),
        ({"spec.domain.firmware.bootloader": {"bios": {"useSerial": True}}}, []),
        (
            {"spec.domain.firmware.kernelBoot": {"kernelArgs": "quiet"}},
            [
                (
                    INVALID,
                    "kernel arguments cannot be provided without an external kernel",
                    "spec.domain.firmware.kernelBoot.kernelArgs",
                )
            ],
        ),
        (
            {"spec.domain.firmware.kernelBoot": {"container": {"image": ""}}},
            [
                (
                    REQUIRED,
                    "spec.domain.firmware.kernelBoot.container must be defined with an image",
                    "spec.domain.firmware.kernelBoot.container.image",
                ),
                (
                    REQUIRED,
                    "spec.domain.firmware.kernelBoot.container must be defined with at least one of the following: "
                    "kernelPath, initrdPath",
                    "spec.domain.firmware.kernelBoot.container",
                ),
            ],
        ),
        (
            {
                "spec.domain.firmware.kernelBoot": {
                    "container": {"image": "i", "kernelPath": "/../k", "initrdPath": "/"}
                }
            },
            [
                (
                    INVALID,
                    "spec.domain.firmware.kernelBoot.container.kernelPath must be an absolute path to a file without "
                    "relative components",
                    "spec.domain.firmware.kernelBoot.container.kernelPath",
                ),
                (
                    INVALID,
                    "spec.domain.firmware.kernelBoot.container.initrdPath must not point to root",
                    "spec.domain.firmware.kernelBoot.container.initrdPath",
                ),
            ],
        ),
        (
            {"spec.domain.firmware.acpi": {}},
            [(INVALID, "ACPI was set but no SLIC nor MSDM volume reference was set", "spec.acpi")],
        ),
        (
            {"spec.domain.firmware.acpi": {"slicNameRef": "no", "msdmNameRef": "containerdisk"}},
            [
                (INVALID, "spec.acpi does not have a matching Volume.", "spec.acpi.slicNameRef"),
                (INVALID, "spec.acpi refers to Volume of unsupported type.", "spec.acpi.msdmNameRef"),
            ],
        ),
        # Features
        ({HYPERV: {"synictimer": {}, "evmcs": {}}}, []),
        (
            {HYPERV: {"synic": {}, "vpindex": {"enabled": False}}},
            [
                (
                    INVALID,
                    f"'{HYPERV}.domain.features.hyperv.synic' requires '{HYPERV}.domain.features.hyperv.vpindex', "
                    "which was disabled.",
                    f"{HYPERV}.domain.features.hyperv.synic",
                )
            ],
        ),
        (
            {HYPERV: {"relaxed": {}}, "spec.domain.features.hypervPassthrough": {"enabled": True}},
            [
                (
                    INVALID,
                    "Cannot explicitly set hyperV features if HypervPassthrough is being used. Please use either "
                    "HyperV or HypervPassthrough.",
                    HYPERV,
                )
            ],
        ),
        # Placement
        ({"spec.affinity": {"nodeAffinity": {}}}, []),
        ({"spec.affinity": node({"key": "a.b/c", "operator": "Gt", "values": ["3"]})}, []),
        (
            {
                "spec.affinity": {
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
                }
            },
            [(INVALID, f"{NODE}: Required value: must have at least one node selector term", NODE)],
        ),
        (
            {
                "spec.affinity": node(
                    {"key": "a", "operator": "In"},
                    {"key": "_", "operator": "Exists", "values": ["x"]},
                    {"key": "a", "operator": "Near"},
                    fields=[{"key": "spec.x", "operator": "Gt"}],
                )
            },
            [
                (
                    INVALID,
                    f"{NODE}[0].{field}: {body}",
                    f"{NODE}[0].{field}",
                )
                for field, body in (
                    (
                        "matchExpressions[0].values",
                        "Required value: must be specified when `operator` is 'In' or 'NotIn'",
                    ),
                    (
                        "matchExpressions[1].values",
                        "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ),
                    ("matchExpressions[1].key", f'Invalid value: "_": {BAD_KEY}'),
                    ("matchExpressions[2].operator", 'Invalid value: "Near": not a valid selector operator'),
                    ("matchFields[0].operator", 'Invalid value: "Gt": not a valid selector operator'),
                    ("matchFields[0].key", 'Invalid value: "spec.x": not a valid field selector key'),
                )
            ],
        ),
        (
            {
                "spec.affinity": pod(
                    {"topologyKey": "", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}
                )
            },
            [
                (INVALID, f"{POD}.{field}: {body}", f"{POD}.{field}")
                for field, body in (
                    (
                        "labelSelector.matchExpressions[0].values",
                        "Required value: must be specified when `operator` is 'In' or 'NotIn'",
                    ),
                    ("topologyKey", "Required value: can not be empty"),
                    ("topologyKey", 'Invalid value: "": name part must be non-empty'),
                    ("topologyKey", f'Invalid value: "": {BAD_KEY}'),
                )
            ],
        ),
        (
            {"spec.topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Cry"}]},
            [
                (
                    INVALID,
                    f"spec.topologySpreadConstraints[0].{field}: {body}",
                    f"spec.topologySpreadConstraints[0].{field}",
                )
                for field, body in (
                    ("maxSkew", "Invalid value: 0: must be greater than zero"),
                    (
                        "whenUnsatisfiable",
                        'Unsupported value: "Cry": supported values: "DoNotSchedule", "ScheduleAnyway"',
                    ),
                )
            ],
        ),
        ({"spec.terminationGracePeriodSeconds": -1}, []),
        ({"spec.domain.clock": {"utc": {}, "timezone": "UTC"}}, []),
        ({"spec.architecture": "arm64", "spec.domain.machine": {"type": ""}}, []),
        ({"spec.architecture": "s390x"}, []),
        ({"spec.architecture": "s390x", "spec.domain.launchSecurity": {}}, []),
        (
            {
                "spec.architecture": "arm64",
                "spec.domain.machine": {"type": "virt"},
                "spec.domain.devices.disks.0.disk.bus": "sata",
                "spec.domain.launchSecurity": {"sev": {}},
            },
            [
                (INVALID, "No launchSecurity support for architecture: arm64", "spec.architecture"),
                (
                    NOT_SUPPORTED,
                    "Arm64 not support this disk bus type, please use virtio or scsi",
                    "spec.domain.devices.disks[0].disk.bus",
                ),
            ],
        ),
        (
            {"spec.architecture": "vax"},
            [(INVALID, "unsupported architecture: vax", "spec.architecture")],
        ),
        (
            {"spec.architecture": "arm64", "spec.domain.machine": {"type": "q35"}},
            [
                (
                    INVALID,
                    "spec.domain.machine.type is not supported: q35 (allowed values: [virt*])",
                    "spec.domain.machine.type",
                )
            ],
        ),
        # Encrypted memory
        (
            {"spec.domain.launchSecurity": {"sev": {}, "snp": {}}},
            [(FORBIDDEN, "One and only one launchSecurity type can be set", "spec.launchSecurity")],
        ),
        (
            {"spec.domain.launchSecurity": {"sev": {}}},
            [(INVALID, "SEV requires OVMF (UEFI)", "spec.launchSecurity")],
        ),
        (
            {
                "spec.domain.launchSecurity": {"sev": {"attestation": {}}},
                "spec.domain.firmware.bootloader": {"efi": {"secureBoot": False}},
            },
            [(INVALID, "SEV attestation requires VMI StartStrategy 'Paused'", "spec.launchSecurity")],
        ),
        (
            {
                "spec.domain.launchSecurity": {"sev": {"attestation": {}}},
                "spec.domain.firmware.bootloader": {"efi": {"secureBoot": False}},
                "spec.startStrategy": "Paused",
            },
            [],
        ),
        (
            {
                "spec.domain.launchSecurity": {"snp": {}},
                "spec.domain.firmware.bootloader": {"efi": {"secureBoot": False, "persistent": True}},
            },
            [(INVALID, "SNP does not work along with Persistent EFI variables", "spec.launchSecurity")],
        ),
        (
            {"spec.domain.launchSecurity": {"tdx": {}}},
            [
                (
                    INVALID,
                    "WorkloadEncryptionTDX feature gate is not enabled in kubevirt-config",
                    "spec.launchSecurity",
                )
            ],
        ),
        (
            {
                "spec.domain.launchSecurity": {"snp": {"policy": "0x1", "idBlock": "AA=="}},
                "spec.domain.firmware.bootloader": {"efi": {"secureBoot": False}},
            },
            [
                (INVALID, "0x1 SEV-SNP Policy Config must have bit 17 (0x20000) set to 1", "spec.launchSecurity.snp"),
                (
                    INVALID,
                    "IdBlock and IdAuth must be set together for guest identity attestation",
                    "spec.launchSecurity.snp",
                ),
                (
                    INVALID,
                    "AA== is not a valid SEV-SNP IdBlock value, must be base64-encoded data that decodes to exactly 96 "
                    "bytes",
                    "spec.launchSecurity.snp.idBlock",
                ),
            ],
        ),
    ],
)
def test_causes(changes: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert [(cause.type, cause.message, cause.field) for cause in causes(changes)] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec.domain.firmware.kernelBoot": {"kernelArgs": "a\nb"}}, "must be one line of printable characters"),
        ({"spec.domain.cpu": {"cores": 2**32 - 1}}, "exceed the maximum of 4096"),
        ({"spec.domain.cpu": {"sockets": 1, "maxSockets": 5000}}, "exceed the maximum of 4096"),
        ({"spec.domain.chassis": {"asset": "a\x7f"}}, "must be at most 256 printable characters"),
        ({HYPERV: {"vendorid": {"vendorid": "a,b"}}}, "must be printable characters without a comma"),
        ({f"{MEMORY}.maxGuest": "-1Gi"}, "must be greater than or equal to 0."),
        ({f"{MEMORY}.reservedOverhead": {"addedOverhead": "-1"}}, "must be greater than or equal to 0."),
        ({f"{MEMORY}.hugepages": {"pageSize": "-2Mi"}}, "must be greater than 0"),
        ({f"{RESOURCES}.requests": {"memory": "64M", "example.org/x": -1}}, "must be greater than or equal to 0."),
    ],
)
def test_what_no_guest_could_start_with_is_refused(changes: dict[str, Any], message: str) -> None:
    assert any(message in cause.message for cause in causes(changes))


def test_causes_come_in_kubevirts_order() -> None:
    found = causes(
        {
            "spec.hostname": "A",
            f"{RESOURCES}.limits": {"memory": "1M"},
            "spec.domain.machine": {"type": "pc"},
            f"{CPU}.isolateEmulatorThread": True,
            "spec.startStrategy": "Running",
            "spec.evictionStrategy": "Never",
            "spec.architecture": "vax",
        }
    )
    assert [cause.field for cause in found] == [
        "spec.hostname",
        f"{RESOURCES}.requests.memory",
        "spec.domain.machine.type",
        f"{CPU}.isolateEmulatorThread",
        "spec.startStrategy",
        "spec.evictionStrategy",
        "spec.architecture",
    ]


def test_guests_larger_than_the_limit_where_changes_wait() -> None:
    found = causes({f"{RESOURCES}.limits": {"memory": "64M"}, f"{MEMORY}.guest": "1Gi"}, Context(STAGE))
    message = f"{MEMORY}.guest '1Gi' must be equal to or less than the memory limit {RESOURCES}.limits.memory '64M'"
    assert [(cause.message, cause.field) for cause in found] == [(message, f"{MEMORY}.guest")]


def test_ignition_is_behind_its_gate() -> None:
    annotations = {"metadata.annotations": {"kubevirt.io/ignitiondata": "{}"}}
    assert [cause.message for cause in causes(annotations)] == [
        "ExperimentalIgnitionSupport feature gate is not enabled in kubevirt-config, invalid entry "
        "metadata.annotations.kubevirt.io/ignitiondata"
    ]
    assert causes(annotations, Context(IGNITION)) == []


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"memory": {"guest": "1Gi", "maxGuest": "4Gi"}}, None),
        ({"memory": {"guest": "64M", "maxGuest": "1Gi"}}, "Guest memory must be 2Mi aligned"),
        (
            {"memory": {"guest": "64Mi", "maxGuest": "1Gi"}},
            "is only available for VMs with at least 1Gi of guest memory",
        ),
        (
            {"memory": {"guest": "2Gi", "maxGuest": "1Gi"}},
            "Guest memory is greater than the configured maxGuest memory",
        ),
        ({"memory": {"guest": "1Gi", "maxGuest": "1500M"}}, "MaxGuest must be 2Mi aligned"),
        (
            {"memory": {"guest": "2Gi", "maxGuest": "5Gi", "hugepages": {"pageSize": "1Gi"}}, "resources": {}},
            None,
        ),
    ],
)
def test_templates_whose_instances_could_not_grow(domain: dict[str, Any], expected: str | None) -> None:
    vm = talk_vm()
    for key, value in domain.items():
        put(vm, f"spec.template.spec.domain.{key}", value)
    found = [
        cause.message
        for cause in vms.validate(vms.default(vm))
        if cause.field == "spec.template.spec.domain.memory.guest"
    ]
    assert (not found) if expected is None else (len(found) == 1 and expected in found[0])


def test_spread_over_domains() -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "a key",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]},
    }
    assert [cause.field for cause in causes({"spec.topologySpreadConstraints": [constraint]})] == [
        "spec.topologySpreadConstraints[0].topologyKey",
        "spec.topologySpreadConstraints.labelSelector.matchExpressions[0].operator",
    ]


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        (
            "RebootPolicy",
            {"spec.domain.rebootPolicy": "Terminate"},
            (
                INVALID,
                "RebootPolicy is specified but the RebootPolicy feature gate is not enabled",
                "spec.domain.rebootPolicy",
            ),
        ),
        (
            "ReservedOverheadMemlock",
            {f"{MEMORY}.reservedOverhead": {"addedOverhead": "64Mi"}},
            (
                INVALID,
                "Reserved overhead memlock feature gate is not enabled in kubevirt-config",
                f"{MEMORY}.reservedOverhead",
            ),
        ),
    ],
)
def test_what_is_behind_a_gate(gate: str, changes: dict[str, Any], expected: tuple[str, str, str]) -> None:
    off, on = (
        Context(from_kubevirt({"spec": {"configuration": {"developerConfiguration": {key: [gate]}}}}))
        for key in ("disabledFeatureGates", "featureGates")
    )
    assert [(cause.type, cause.message, cause.field) for cause in causes(changes, off)] == [expected]
    assert causes(changes, on) == []


def test_secure_boot_of_an_arm_machine_is_admitted() -> None:
    firmware = {"bootloader": {"efi": {"secureBoot": True}}}
    changes = {
        "spec.architecture": "arm64",
        "spec.domain.firmware": firmware,
        "spec.domain.features": {"smm": {"enabled": True}},
    }
    assert [cause.message for cause in causes(changes) if "secure" in cause.message.lower()] == []
