# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's devices."""

from __future__ import annotations

from turtles.api.kinds.vmi.schema.disks import DISK, FILESYSTEMS
from turtles.api.kinds.vmi.schema.network import INTERFACE
from turtles.api.language import BOOLEAN, STRING, ListOf, Struct, field, unsupported

_OFF = (False,)

_INPUT = Struct(
    "An input device.",
    field("name", STRING, "Name of the device.", required=True),
    field("type", STRING, "tablet.", required=True),
    field("bus", STRING, "usb or virtio.", default="usb"),
)

_WATCHDOG = Struct(
    "A watchdog.",
    field("name", STRING, "Name of the device.", required=True),
    field(
        "i6300esb",
        Struct(
            "The PCI watchdog i6300esb.",
            field("action", STRING, "What happens when it fires: poweroff, reset or shutdown.", default="reset"),
        ),
        "The PCI watchdog i6300esb.",
    ),
    unsupported("diag288", "The watchdog of s390x."),
)

DEVICES = Struct(
    "The machine's devices.",
    field("disks", ListOf(DISK, max_items=256), "Disks."),
    field("interfaces", ListOf(INTERFACE, max_items=256), "Network interfaces."),
    field("inputs", ListOf(_INPUT), "Input devices."),
    field("watchdog", _WATCHDOG, "Watchdog."),
    field("rng", Struct("No settings."), "Give the guest a source of randomness."),
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
    unsupported("autoattachInputDevice", "Whether an input device is added if none is declared.", neutral=_OFF),
    unsupported("autoattachVSOCK", "Whether the guest has a VSOCK address.", neutral=_OFF),
    unsupported("useVirtioTransitional", "Use transitional virtio devices, for old guests.", neutral=_OFF),
    unsupported("disableHotplug", "Disable the hotplug of disks.", neutral=(False, True)),
    field("blockMultiQueue", BOOLEAN, "Whether disks on the bus virtio have a queue for each vCPU."),
    unsupported("networkInterfaceMultiqueue", "A queue for each vCPU in virtio interfaces.", neutral=_OFF),
    unsupported("logSerialConsole", "Whether the serial console's output is logged.", neutral=_OFF),
    unsupported("gpus", "GPUs handed to the guest."),
    unsupported("hostDevices", "Host devices handed to the guest."),
    field("filesystems", FILESYSTEMS, "Directories shared with the guest."),
    unsupported("tpm", "Trusted platform module.", neutral=({"enabled": False},)),
    unsupported("sound", "Sound card."),
    unsupported("video", "Graphics card."),
    unsupported("panicDevices", "Devices by which the guest reports a panic."),
    unsupported("clientPassthrough", "USB devices of a client handed to the guest."),
    unsupported("downwardMetrics", "Metrics of the host, exposed to the guest."),
)
