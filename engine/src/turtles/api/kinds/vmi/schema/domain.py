# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine itself: processors, memory and what the Pod requests for them, along with all the rest."""

from __future__ import annotations

from turtles.api.kinds.vmi.schema.devices import DEVICES
from turtles.api.kinds.vmi.schema.firmware import CLOCK, FEATURES, FIRMWARE
from turtles.api.language import QUANTITY, STRING, UINT32, ListOf, MapOf, Struct, field, unsupported

_OFF = (False,)

_CPU = Struct(
    "The machine's processors.",
    field("cores", UINT32, "Cores per socket."),
    field("sockets", UINT32, "Sockets."),
    field("threads", UINT32, "Threads per core."),
    field("model", STRING, "host-model (the default), host-passthrough, or a model libvirt knows, such as Nehalem."),
    field(
        "features",
        ListOf(
            Struct(
                "A processor feature.",
                field("name", STRING, "Name of the feature in libvirt.", required=True),
                field("policy", STRING, "force, require, optional, disable or forbid.", default="require"),
            )
        ),
        "Processor features.",
    ),
    unsupported("maxSockets", "Sockets the machine may grow to while it runs."),
    unsupported("dedicatedCpuPlacement", "Whether each vCPU has a host CPU of its own.", neutral=_OFF),
    unsupported("isolateEmulatorThread", "Whether the emulator has a host CPU of its own.", neutral=_OFF),
    unsupported("numa", "NUMA topology."),
    unsupported("realtime", "Realtime scheduling."),
)

_RESOURCES = MapOf(QUANTITY, keys=("cpu", "memory"))

DOMAIN = Struct(
    "The machine itself.",
    field("devices", DEVICES, "The machine's devices.", required=True),
    field(
        "resources",
        Struct(
            "What the machine's Pod requests.",
            field("requests", _RESOURCES, "What the Pod is guaranteed: cpu, memory."),
            field("limits", _RESOURCES, "What the Pod may use: cpu, memory."),
            unsupported("overcommitGuestOverhead", "Leave the engine's overhead out of requests.", neutral=_OFF),
        ),
        "What the machine's Pod requests; memory and processors of the guest too, if those aren't given.",
        absent={},
    ),
    field("cpu", _CPU, "The machine's processors.", absent={}),
    field(
        "memory",
        Struct(
            "The machine's memory.",
            field("guest", QUANTITY, "Memory the guest sees; that of resources if not given."),
            unsupported("maxGuest", "Memory the machine may grow to while it runs."),
            unsupported("hugepages", "Back the memory by huge pages."),
            unsupported("reservedOverhead", "Memory reserved in addition to the guest's."),
        ),
        "The machine's memory.",
        absent={},
    ),
    field(
        "machine",
        Struct("The machine's type.", field("type", STRING, "q35, or a version of it such as pc-q35-7.2.")),
        "The machine's type.",
        absent={},
    ),
    field("firmware", FIRMWARE, "The machine's firmware.", absent={}),
    field("clock", CLOCK, "The machine's clock.", absent={}),
    field("features", FEATURES, "Features of the machine.", absent={}),
    unsupported("ioThreadsPolicy", "How IO threads are assigned."),
    unsupported("ioThreads", "IO threads."),
    unsupported("chassis", "SMBIOS chassis."),
    unsupported("launchSecurity", "Encrypted memory."),
    unsupported("rebootPolicy", "What a reboot of the guest does.", neutral=("Reboot",)),
)
