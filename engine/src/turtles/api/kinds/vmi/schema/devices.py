# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's devices."""

from __future__ import annotations

from turtles.api.kinds.vmi.schema.disks import DISK, FILESYSTEMS
from turtles.api.kinds.vmi.schema.network import INTERFACE
from turtles.api.language import BOOLEAN, STRING, ListOf, Struct, field, group

_OFF = (False,)
_NO_SETTINGS = Struct("No settings.")
_SWITCH = Struct("A switch.", field("enabled", BOOLEAN, "Whether it is on.", default=True))

_INPUT = Struct(
    "An input device.",
    field("name", STRING, "Name of the device.", required=True),
    field("type", STRING, "tablet.", required=True),
    field("bus", STRING, "usb or virtio.", default="usb"),
)

_ACTION = field("action", STRING, "What happens when it fires: poweroff, reset or shutdown.", default="reset")

_WATCHDOG = Struct(
    "A watchdog.",
    field("name", STRING, "Name of the device.", required=True),
    group("i6300esb", "The PCI watchdog i6300esb, of amd64.", _ACTION),
    group("diag288", "The watchdog of s390x.", _ACTION),
)

_TPM = Struct(
    "A trusted platform module, version 2.0, emulated.",
    field("enabled", BOOLEAN, "Whether it exists; true if not given.", absent=True),
    field(
        "persistent",
        BOOLEAN,
        "Whether it outlives the machine, on a claim of the KubeVirt object's vmStateStorageClass or the default one.",
    ),
)

_SOUND = Struct(
    "A sound card.",
    field("name", STRING, "Name of the device.", required=True),
    field("model", STRING, "ich9 (the default) or ac97.", absent="ich9"),
)

_VIDEO = Struct("A graphics card.", field("type", STRING, "vga, cirrus, virtio, ramfb or bochs."))

_PANIC_DEVICE = Struct(
    "A device by which the guest reports a panic.", field("model", STRING, "hyperv, isa or pvpanic.")
)

_CLAIM = (
    field("claimName", STRING, "The resource claim that the device comes from, one of spec.resourceClaims."),
    field("requestName", STRING, "The request in that claim."),
)

_HOST_DEVICE = Struct(
    "A device of the node that is handed to the guest.",
    field("name", STRING, "Name of the device.", required=True),
    field("deviceName", STRING, "Resource that it comes from, one of the KubeVirt object's permittedHostDevices."),
    field("tag", STRING, "Tag of the device, which the guest finds in the metadata of its config drive."),
    *_CLAIM,
)

_GPU = Struct(
    "A GPU that is handed to the guest.",
    field("name", STRING, "Name of the device.", required=True),
    field("deviceName", STRING, "Resource that it comes from, one of the KubeVirt object's permittedHostDevices."),
    field("tag", STRING, "Tag of the device, which the guest finds in the metadata of its config drive."),
    group(
        "virtualGPUOptions",
        "Options of a virtual GPU.",
        group(
            "display",
            "Its display.",
            field("enabled", BOOLEAN, "Whether it has one; true if not given.", absent=True),
            field("ramFB", _SWITCH, "A frame buffer for the time until the guest has its driver."),
            absent={},
        ),
        absent={},
    ),
    *_CLAIM,
)

DEVICES = Struct(
    "The machine's devices.",
    field("disks", ListOf(DISK, max_items=256), "Disks."),
    field("interfaces", ListOf(INTERFACE, max_items=256), "Network interfaces."),
    field("inputs", ListOf(_INPUT), "Input devices."),
    field("watchdog", _WATCHDOG, "Watchdog."),
    field("rng", _NO_SETTINGS, "Give the guest a source of randomness."),
    field(
        "autoattachPodInterface",
        BOOLEAN,
        "Whether an interface on the Pod network is added if none is declared; true if not given.",
        absent=True,
    ),
    field(
        "autoattachGraphicsDevice",
        BOOLEAN,
        "Whether there is a graphics card with VNC; true if not given.",
        absent=True,
    ),
    field("autoattachSerialConsole", BOOLEAN, "Whether there is a serial console; true if not given.", absent=True),
    field("autoattachMemBalloon", BOOLEAN, "Whether there is a memory balloon; true if not given.", absent=True),
    field("autoattachInputDevice", BOOLEAN, "Whether a VirtualMachine's instance gets a tablet if none is declared."),
    field("autoattachVSOCK", BOOLEAN, "Whether the guest has a VSOCK address. Needs the gate VSOCK."),
    field("useVirtioTransitional", BOOLEAN, "Use transitional virtio devices, for old guests."),
    field("disableHotplug", BOOLEAN, "Leave out what only disks that are added to a running machine need."),
    field("blockMultiQueue", BOOLEAN, "Whether disks on the bus virtio have a queue for each vCPU."),
    field("networkInterfaceMultiqueue", BOOLEAN, "A queue for each vCPU in virtio interfaces."),
    field(
        "logSerialConsole",
        BOOLEAN,
        "Whether the serial console's output is the log of the container guest-console-log of the launcher Pod; true "
        "if neither this nor the KubeVirt object says otherwise.",
    ),
    field("gpus", ListOf(_GPU), "GPUs handed to the guest."),
    field("hostDevices", ListOf(_HOST_DEVICE), "Host devices handed to the guest. Needs the gate HostDevices."),
    field("filesystems", FILESYSTEMS, "Directories shared with the guest."),
    field("tpm", _TPM, "Trusted platform module."),
    field("sound", _SOUND, "Sound card."),
    field("video", _VIDEO, "Graphics card."),
    field("panicDevices", ListOf(_PANIC_DEVICE), "Devices by which the guest reports a panic."),
    field("clientPassthrough", _NO_SETTINGS, "Four USB ports for devices of a client, by virtctl usbredir."),
    field("downwardMetrics", _NO_SETTINGS, "Metrics of the host on a virtio port. Needs the gate DownwardMetrics."),
)
