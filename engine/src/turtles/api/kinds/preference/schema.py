# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a preference. Names and meanings are those of the KubeVirt API, instancetype.kubevirt.io/v1beta1.

They are complete, whether or not this engine implements what they ask for: what a machine gets from a preference is
judged like what it asks for itself.
"""

from __future__ import annotations

from turtles.api.kinds.vmi.schema.firmware import LAUNCH_SECURITY
from turtles.api.language import (
    BOOLEAN,
    INT64,
    POSITIVE_UINT32,
    QUANTITY,
    STRING,
    STRING_MAP,
    UINT32,
    Struct,
    field,
    group,
    group_list,
)

_STATE = Struct("Whether a feature is on.", field("enabled", BOOLEAN, "Whether it is on; true if not given."))
_EMPTY = Struct("No settings.")

VIRTUAL_GPU_OPTIONS = Struct(
    "Options of a virtual GPU.",
    group(
        "display",
        "Whether it has a display.",
        field("enabled", BOOLEAN, "Whether it exists; true if not given."),
        field("ramFB", _STATE, "Whether there is a frame buffer before the guest's driver works."),
    ),
)

# --- clock -----------------------------------------------------------------------------------------------------------


def _timer(name: str, *more: str) -> Struct:
    docs = {"tickPolicy": "What happens to ticks that the guest missed.", "track": "guest or wall."}
    return Struct(
        f"The {name} timer.",
        field("present", BOOLEAN, "Whether it exists; true if not given."),
        *(field(item, STRING, docs[item]) for item in more),
    )


_TIMERS = {"hpet": ("tickPolicy",), "kvm": (), "pit": ("tickPolicy",), "rtc": ("tickPolicy", "track"), "hyperv": ()}

_CLOCK = Struct(
    "The clock of machines that say nothing about it.",
    group(
        "preferredClockOffset",
        "What the clock shows; for machines that have neither utc nor timezone.",
        group("utc", "UTC.", field("offsetSeconds", INT64, "Seconds added to UTC.")),
        field("timezone", STRING, "The time of this zone."),
    ),
    group(
        "preferredTimer",
        "Timers, for machines that declare none.",
        *(field(name, _timer(name, *more), f"The {name} timer.") for name, more in _TIMERS.items()),
    ),
)

# --- processors ------------------------------------------------------------------------------------------------------

_CPU = Struct(
    "Processors.",
    field(
        "preferredCPUTopology",
        STRING,
        "How the guest sees the vCPUs of the instance type: as sockets (the default), cores or threads, spread or any.",
    ),
    group(
        "spreadOptions",
        "How vCPUs are spread with the topology spread.",
        field("across", STRING, "SocketsCores (the default), SocketsCoresThreads or CoresThreads."),
        field("ratio", POSITIVE_UINT32, "Cores per socket, or threads per core with CoresThreads; 2 if not given."),
    ),
    group_list(
        "preferredCPUFeatures",
        "Processor features that a machine gets unless it names the same ones.",
        field("name", STRING, "Name of the feature in libvirt.", required=True),
        field("policy", STRING, "force, require, optional, disable or forbid."),
    ),
)

# --- devices ---------------------------------------------------------------------------------------------------------

_BLOCK_SIZE = Struct(
    "Block sizes that the guest sees.",
    group(
        "custom",
        "Given sizes.",
        field("logical", UINT32, "Logical block size in bytes.", required=True),
        field("physical", UINT32, "Physical block size in bytes.", required=True),
        field("discardGranularity", UINT32, "Granularity of discards in bytes."),
    ),
    field("matchVolume", _STATE, "The volume's own sizes."),
)

_DEVICES = Struct(
    "Devices. What a machine sets itself stays; the field name after `preferred` says what is set.",
    field("preferredAutoattachGraphicsDevice", BOOLEAN, "Whether there is a graphics card with VNC."),
    field("preferredAutoattachMemBalloon", BOOLEAN, "Whether there is a memory balloon."),
    field("preferredAutoattachPodInterface", BOOLEAN, "Whether an interface is added if none is declared."),
    field("preferredAutoattachSerialConsole", BOOLEAN, "Whether there is a serial console."),
    field("preferredAutoattachInputDevice", BOOLEAN, "Whether an input device is added if none is declared."),
    field("preferredDisableHotplug", BOOLEAN, "Whether disks can't be plugged in; overrides what the machine says."),
    field("preferredVirtualGPUOptions", VIRTUAL_GPU_OPTIONS, "Options of virtual GPUs."),
    field("preferredSoundModel", STRING, "Model of a sound card that has none."),
    field("preferredUseVirtioTransitional", BOOLEAN, "Whether virtio devices are transitional, for old guests."),
    field("preferredInputBus", STRING, "Bus of input devices."),
    field("preferredInputType", STRING, "Type of input devices."),
    field("preferredDiskBus", STRING, "Bus of disks."),
    field("preferredLunBus", STRING, "Bus of LUNs."),
    field("preferredCdromBus", STRING, "Bus of CD-ROM drives."),
    field("preferredDiskDedicatedIoThread", BOOLEAN, "Whether virtio disks have an IO thread of their own."),
    field("preferredDiskCache", STRING, "Cache mode of disks."),
    field("preferredDiskIO", STRING, "I/O mode of disks."),
    field("preferredDiskBlockSize", _BLOCK_SIZE, "Block sizes of disks."),
    field("preferredInterfaceModel", STRING, "Model of network interfaces."),
    field("preferredRng", _EMPTY, "Give the guest a source of randomness."),
    field("preferredBlockMultiQueue", BOOLEAN, "A queue for each vCPU in virtio disks."),
    field("preferredNetworkInterfaceMultiQueue", BOOLEAN, "A queue for each vCPU in virtio interfaces."),
    group(
        "preferredTPM",
        "Trusted platform module.",
        field("enabled", BOOLEAN, "Whether it exists; true if not given."),
        field("persistent", BOOLEAN, "Whether its state outlives the instance."),
    ),
    field("preferredInterfaceMasquerade", _EMPTY, "Masquerade, for interfaces on the Pod network without a binding."),
    field("preferredPanicDeviceModel", STRING, "Model of panic devices that have none."),
    field("preferredVideoType", STRING, "Type of the graphics card."),
)

# --- features and firmware -------------------------------------------------------------------------------------------

_HYPERV = Struct(
    "Enlightenments for Windows; each that the machine doesn't have is added.",
    *(
        field(name, _STATE, f"The enlightenment {name}.")
        for name in ("relaxed", "vapic", "vpindex", "runtime", "synic", "reset", "frequencies", "reenlightenment")
    ),
    *(field(name, _STATE, f"The enlightenment {name}.") for name in ("ipi", "evmcs")),
    group(
        "spinlocks",
        "Spin locks.",
        field("enabled", BOOLEAN, "Whether it is on; true if not given."),
        field("spinlocks", UINT32, "Retries before the guest yields; 4096 if not given."),
    ),
    group(
        "synictimer",
        "Synthetic timers.",
        field("enabled", BOOLEAN, "Whether it is on; true if not given."),
        field("direct", _STATE, "Direct mode."),
    ),
    group(
        "tlbflush",
        "Flushes of the TLB.",
        field("enabled", BOOLEAN, "Whether it is on; true if not given."),
        field("direct", _STATE, "Direct flushes."),
        field("extended", _STATE, "Extended flushes."),
    ),
    group(
        "vendorid",
        "The hypervisor's vendor.",
        field("enabled", BOOLEAN, "Whether it is on; true if not given."),
        field("vendorid", STRING, "Up to 12 characters."),
    ),
)

_FEATURES = Struct(
    "Features, unless the machine sets them.",
    field("preferredAcpi", _STATE, "ACPI; overrides what the machine says."),
    group(
        "preferredApic",
        "APIC.",
        field("enabled", BOOLEAN, "Whether it is on; true if not given."),
        field("endOfInterrupt", BOOLEAN, "Whether the guest is notified of the end of interrupts."),
    ),
    field("preferredHyperv", _HYPERV, "Enlightenments for Windows."),
    group("preferredKvm", "KVM.", field("hidden", BOOLEAN, "Whether it is hidden from the guest.")),
    field("preferredPvspinlock", _STATE, "Paravirtual spin locks."),
    field("preferredSmm", _STATE, "System management mode."),
)

_FIRMWARE = Struct(
    "Firmware, for machines that don't say what boots them.",
    field("preferredUseBios", BOOLEAN, "Boot with BIOS."),
    field("preferredUseBiosSerial", BOOLEAN, "Print the BIOS' output to the serial console."),
    field("preferredUseEfi", BOOLEAN, "Deprecated: boot with EFI. Use preferredEfi."),
    field("preferredUseSecureBoot", BOOLEAN, "Deprecated: secure boot with EFI. Use preferredEfi."),
    group(
        "preferredEfi",
        "Boot with EFI.",
        field("secureBoot", BOOLEAN, "Whether secure boot is on; true if not given."),
        field("persistent", BOOLEAN, "Whether its variables outlive the instance."),
    ),
)

_REQUIREMENTS = Struct(
    "Minimum requirements. Machines that don't fulfil them are refused.",
    group("cpu", "vCPUs.", field("guest", UINT32, "Number of vCPUs.", required=True)),
    group("memory", "Memory.", field("guest", QUANTITY, "Memory of the guest.", required=True)),
    field("architecture", STRING, "Processor architecture."),
)

PREFERENCE_SPEC = Struct(
    "Defaults for machines, and what they must have.",
    field("clock", _CLOCK, "Clock."),
    field("cpu", _CPU, "Processors."),
    field("devices", _DEVICES, "Devices."),
    field("features", _FEATURES, "Features of the machine."),
    field("firmware", _FIRMWARE, "Firmware."),
    group("machine", "Machine.", field("preferredMachineType", STRING, "Type of the machine.")),
    group("volumes", "Volumes.", field("preferredStorageClassName", STRING, "Storage class of dataVolumeTemplates.")),
    field("preferredSubdomain", STRING, "Subdomain of the guest's host name."),
    field("preferredTerminationGracePeriodSeconds", INT64, "Seconds that the guest has to shut down."),
    field("requirements", _REQUIREMENTS, "Minimum requirements."),
    field("annotations", STRING_MAP, "Annotations of instances that don't have them."),
    field(
        "preferSpreadSocketToCoreRatio",
        UINT32,
        "Cores per socket with the topology spread, if spreadOptions has no ratio; 2 if not given.",
    ),
    field("preferredArchitecture", STRING, "Processor architecture."),
    field("preferredLaunchSecurity", LAUNCH_SECURITY, "Encrypted memory."),
)
