# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's observed state."""

from __future__ import annotations

from turtles.api.core import CONDITIONS, FREE
from turtles.api.language import (
    EMPTY_OR_STRING,
    INT32,
    INT64,
    QUANTITY,
    STRING,
    STRING_MAP,
    STRINGS,
    TIME,
    Struct,
    field,
    group,
    group_list,
)


def _status(doc: str, **fields: str) -> Struct:
    """Strings and integers of a status, told apart by a leading `#` in their documentation."""
    return Struct(
        doc,
        *(
            field(name, INT64 if text.startswith("#") else STRING, text.lstrip("#"))
            for name, text in sorted(fields.items())
        ),
    )


VMI_STATUS = Struct(
    "The machine's observed state. Only the engine writes it.",
    field(
        "phase",
        STRING,
        "Pending, Scheduling, Scheduled, Running, Succeeded, Failed, WaitingForSync or Unknown.",
    ),
    field("reason", STRING, "One word that says why the machine is in this phase."),
    field("nodeName", STRING, "The node the machine runs on."),
    field("conditions", CONDITIONS, "Conditions of the machine."),
    group_list(
        "phaseTransitionTimestamps",
        "When each phase began.",
        field("phase", STRING, "The phase."),
        field("phaseTransitionTimestamp", TIME, "When it began."),
    ),
    group_list(
        "interfaces",
        "The machine's interfaces, as the engine, the guest agent and the network see them.",
        field("name", STRING, "Name in the spec."),
        field("ipAddress", STRING, "The first address."),
        field("ipAddresses", STRINGS, "All addresses."),
        field("mac", STRING, "MAC address the guest sees."),
        field("podInterfaceName", STRING, "Name in the Pod."),
        field("interfaceName", STRING, "Name in the guest."),
        field("infoSource", STRING, "domain, guest-agent, multus-status."),
        field("queueCount", INT32, "Queues."),
        field("linkState", STRING, "up or down."),
    ),
    field(
        "guestOSInfo",
        _status(
            "The guest's operating system, as the guest agent reports it.",
            name="Name.",
            id="Id.",
            prettyName="Name and version.",
            version="Version.",
            versionId="Id of the version.",
            kernelRelease="Release of the kernel.",
            kernelVersion="Version of the kernel.",
            machine="Architecture.",
        ),
        "The guest's operating system.",
    ),
    group_list(
        "volumeStatus",
        "The machine's volumes.",
        field("name", STRING, "Name of the volume."),
        field("target", EMPTY_OR_STRING, "Device in the guest, such as vda."),
        field("phase", EMPTY_OR_STRING, "Progress of hotplugging the volume."),
        field("reason", EMPTY_OR_STRING, "One word that says why."),
        field("message", EMPTY_OR_STRING, "A human-readable explanation."),
        field("size", INT64, "Size in bytes."),
        field("persistentVolumeClaimInfo", FREE, "Details of the claim."),
        field("hotplugVolume", FREE, "Details of the hotplug."),
        field("memoryDumpVolume", FREE, "Details of the memory dump."),
        field("containerDiskVolume", FREE, "Details of the container disk."),
    ),
    field("activePods", STRING_MAP, "UIDs of the machine's Pods, each with its node."),
    field("launcherContainerImageVersion", STRING, "Image of the launcher."),
    field("virtualMachineRevisionName", STRING, "ControllerRevision of the VirtualMachine this was started from."),
    field("evacuationNodeName", STRING, "Node that the machine has to leave."),
    field("fsFreezeStatus", STRING, "frozen while file systems are frozen."),
    field("qosClass", STRING, "QoS class of the Pod."),
    field("runtimeUser", INT64, "User id of QEMU."),
    field("machine", _status("The machine's type.", type="Versioned machine type."), "The machine's type."),
    field(
        "currentCPUTopology",
        _status("Processors in use.", cores="#Cores per socket.", sockets="#Sockets.", threads="#Threads per core."),
        "Processors in use.",
    ),
    group(
        "memory",
        "Memory in use.",
        field("guestAtBoot", QUANTITY, "Memory at boot."),
        field("guestCurrent", QUANTITY, "Memory now."),
        field("guestRequested", QUANTITY, "Memory requested."),
        field("memoryOverhead", QUANTITY, "Memory in addition to the guest's."),
    ),
    field("migrationState", FREE, "The latest migration."),
    field("migrationMethod", STRING, "LiveMigration or BlockMigration."),
    field("migrationTransport", STRING, "Unix."),
    field("migratedVolumes", FREE, "Volumes that are being migrated."),
    field("kernelBootStatus", FREE, "Details of the kernel boot."),
    field("topologyHints", FREE, "Details of the node's processors."),
    field("changedBlockTracking", FREE, "Details of changed block tracking."),
    field("selinuxContext", STRING, "SELinux context of the Pod."),
    field("VSOCKCID", INT64, "VSOCK address."),
)
