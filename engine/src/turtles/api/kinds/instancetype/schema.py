# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of an instance type. Names and meanings are those of the KubeVirt API, instancetype.kubevirt.io/v1beta1.

They are complete, whether or not this engine implements what they ask for: what a machine gets from an instance type is
judged like what it asks for itself.
"""

from __future__ import annotations

from turtles.api.kinds.preference.schema import VIRTUAL_GPU_OPTIONS
from turtles.api.kinds.vmi.schema.firmware import LAUNCH_SECURITY
from turtles.api.language import (
    BOOLEAN,
    INT32,
    QUANTITY,
    STRING,
    STRING_MAP,
    UINT32,
    Field,
    ListOf,
    Struct,
    field,
    group,
)


def _device(doc: str, *more: Field) -> ListOf:
    return ListOf(
        Struct(
            doc,
            field("name", STRING, "Name of the device.", required=True),
            field("deviceName", STRING, "Resource that a device plugin offers it as."),
            field("claimName", STRING, "Name of a resource claim of the machine, instead of deviceName."),
            field("requestName", STRING, "Name of a request in the resource claim."),
            field("tag", STRING, "Tag passed to the guest in the config drive."),
            *more,
        )
    )


_CPU = Struct(
    "The machine's processors.",
    field("guest", UINT32, "Number of vCPUs. A preference says as what the guest sees them.", required=True),
    field("model", STRING, "host-model, host-passthrough, or a model libvirt knows."),
    field("dedicatedCPUPlacement", BOOLEAN, "Whether each vCPU gets a dedicated host CPU."),
    field("isolateEmulatorThread", BOOLEAN, "Whether the emulator gets a dedicated host CPU."),
    group("numa", "NUMA topology.", group("guestMappingPassthrough", "The guest sees the topology of its host CPUs.")),
    group("realtime", "Realtime scheduling.", field("mask", STRING, "vCPUs it is for.")),
    field("maxSockets", UINT32, "Sockets the machine may grow to while it runs."),
)

_MEMORY = Struct(
    "The machine's memory.",
    field("guest", QUANTITY, "Memory the guest sees.", required=True),
    group("hugepages", "Back the memory with huge pages.", field("pageSize", STRING, "Their size: 2Mi or 1Gi.")),
    field("overcommitPercent", INT32, "Percentage of the memory that is not requested for the Pod, 0 to 100."),
    field("maxGuest", QUANTITY, "Memory the machine may grow to while it runs."),
)

INSTANCETYPE_SPEC = Struct(
    "The size of machines, and their placement.",
    field("cpu", _CPU, "The machine's processors.", required=True),
    field("memory", _MEMORY, "The machine's memory.", required=True),
    field("nodeSelector", STRING_MAP, "Labels the machine's node must have."),
    field("schedulerName", STRING, "The scheduler that places the machine."),
    field("gpus", _device("A GPU.", field("virtualGPUOptions", VIRTUAL_GPU_OPTIONS, "Options of a vGPU.")), "GPUs."),
    field("hostDevices", _device("A device of the node."), "Devices of the node."),
    field("ioThreadsPolicy", STRING, "How IO threads are assigned: shared, auto or supplementalPool."),
    group(
        "ioThreads", "IO threads.", field("supplementalPoolThreadCount", UINT32, "Threads in the supplemental pool.")
    ),
    field("launchSecurity", LAUNCH_SECURITY, "Encrypted memory. Deprecated in favour of a preference's."),
    field("annotations", STRING_MAP, "Annotations of the instances."),
)
