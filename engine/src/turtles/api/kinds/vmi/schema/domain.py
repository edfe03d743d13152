# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine itself: processors, memory and what the Pod requests for them, along with all the rest."""

from __future__ import annotations

from turtles.api.kinds.vmi.schema.devices import DEVICES
from turtles.api.kinds.vmi.schema.firmware import CLOCK, FEATURES, FIRMWARE, LAUNCH_SECURITY
from turtles.api.language import BOOLEAN, QUANTITY, STRING, UINT32, MapOf, Struct, field, group, group_list

_NUMA = Struct(
    "NUMA topology.",
    group(
        "guestMappingPassthrough",
        "The guest has the NUMA topology of its processors; needs dedicated ones, and huge pages.",
    ),
)

_CPU = Struct(
    "The machine's processors.",
    field("cores", UINT32, "Cores per socket.", absent=1),
    field("sockets", UINT32, "Sockets. They can be added while the machine runs.", absent=1),
    field("maxSockets", UINT32, "Sockets the machine may grow to while it runs; 4 times as many if not given."),
    field("threads", UINT32, "Threads per core.", absent=1),
    field("model", STRING, "host-model (the default), host-passthrough, or a model libvirt knows, such as Nehalem."),
    group_list(
        "features",
        "Processor features.",
        field("name", STRING, "Name of the feature in libvirt.", required=True),
        field("policy", STRING, "force, require (the default), optional, disable or forbid.", absent="require"),
    ),
    field("dedicatedCpuPlacement", BOOLEAN, "Whether each virtual processor has a CPU of the node of its own."),
    field("isolateEmulatorThread", BOOLEAN, "Whether the emulator has a CPU of its own too."),
    field("numa", _NUMA, "NUMA topology."),
    group(
        "realtime",
        "Virtual processors are scheduled in real time.",
        field("mask", STRING, "Virtual processors it is for, such as 0-3,^1; all."),
    ),
)

_MEMORY = Struct(
    "The machine's memory.",
    field("guest", QUANTITY, "Memory the guest sees; that of resources if not given."),
    field("maxGuest", QUANTITY, "Memory the machine may grow to while it runs; 4 times as much if not given."),
    group(
        "hugepages",
        "Back the memory by huge pages of the node.",
        field("pageSize", STRING, "Their size, such as 2Mi or 1Gi."),
    ),
    group(
        "reservedOverhead",
        "Memory reserved in addition to the guest's.",
        field("addedOverhead", QUANTITY, "How much more than the engine reckons with."),
        field("memLock", STRING, "Required: it may be locked; NotRequired (the default).", absent="NotRequired"),
    ),
)

_RESOURCES = MapOf(QUANTITY)

DOMAIN = Struct(
    "The machine itself.",
    field("devices", DEVICES, "The machine's devices.", required=True),
    group(
        "resources",
        "What the machine's Pod requests; memory and processors of the guest too, if those aren't given.",
        field("requests", _RESOURCES, "What the Pod is guaranteed: cpu, memory and anything else nodes offer."),
        field("limits", _RESOURCES, "What the Pod may use."),
        field(
            "overcommitGuestOverhead",
            BOOLEAN,
            "Request memory for the guest only, not for what the engine needs in addition.",
        ),
        absent={},
    ),
    field("cpu", _CPU, "The machine's processors.", absent={}),
    field("memory", _MEMORY, "The machine's memory.", absent={}),
    group(
        "machine",
        "The machine's type.",
        field("type", STRING, "q35, or a version of it such as pc-q35-7.2."),
        absent={},
    ),
    field("firmware", FIRMWARE, "The machine's firmware.", absent={}),
    field("clock", CLOCK, "The machine's clock.", absent={}),
    field("features", FEATURES, "Features of the machine.", absent={}),
    field("ioThreadsPolicy", STRING, "How disks share IO threads: shared, auto or supplementalPool."),
    group(
        "ioThreads",
        "IO threads of the policy supplementalPool.",
        field("supplementalPoolThreadCount", UINT32, "How many threads there are."),
    ),
    group(
        "chassis",
        "What the guest reads about its chassis in SMBIOS.",
        field("manufacturer", STRING, "Manufacturer."),
        field("version", STRING, "Version."),
        field("serial", STRING, "Serial number."),
        field("asset", STRING, "Asset tag."),
        field("sku", STRING, "Stock keeping unit."),
        absent={},
    ),
    field("launchSecurity", LAUNCH_SECURITY, "Encryption of the guest's memory."),
    field(
        "rebootPolicy",
        STRING,
        "What a reboot by the guest does: Reboot (the default), or Terminate, which ends the instance.",
        absent="Reboot",
    ),
)
