# SPDX-License-Identifier: GPL-3.0-or-later
"""Firmware, features and clock."""

from __future__ import annotations

from turtles.api.language import BOOLEAN, INT64, STRING, Struct, field, unsupported

_OFF = (False,)


def _timer(name: str, doc: str, *fields: str) -> Struct:
    docs = {
        "tickPolicy": "What happens to ticks that the guest missed.",
        "track": "What the timer follows: guest or wall.",
    }
    return Struct(
        doc,
        field("present", BOOLEAN, f"Whether the guest has the {name} timer.", default=True),
        *(field(item, STRING, docs[item]) for item in fields),
    )


CLOCK = Struct(
    "The machine's clock.",
    field(
        "utc",
        Struct("UTC with an offset.", field("offsetSeconds", INT64, "Seconds added to UTC.")),
        "The clock shows UTC; the default.",
        absent={},
    ),
    field("timezone", STRING, "The clock shows the time of this zone, such as Europe/Berlin."),
    field(
        "timer",
        Struct(
            "Timers.",
            field("hpet", _timer("hpet", "High precision event timer.", "tickPolicy"), "High precision event timer."),
            field("kvm", _timer("kvm", "KVM clock."), "KVM clock."),
            field("pit", _timer("pit", "Programmable interval timer.", "tickPolicy"), "Programmable interval timer."),
            field("rtc", _timer("rtc", "Real time clock.", "tickPolicy", "track"), "Real time clock."),
            field("hyperv", _timer("hyperv", "Hyper-V clock."), "Hyper-V clock."),
        ),
        "Timers.",
    ),
)

FIRMWARE = Struct(
    "The machine's firmware.",
    field("uuid", STRING, "UUID the guest sees. A VirtualMachine keeps one for life."),
    field("serial", STRING, "System serial number the guest sees."),
    field(
        "bootloader",
        Struct(
            "What boots the machine.",
            field(
                "bios",
                Struct(
                    "BIOS settings.",
                    unsupported("useSerial", "Print the BIOS' output to the serial console.", neutral=_OFF),
                ),
                "Boot with BIOS, the default.",
                absent={},
            ),
            unsupported("efi", "Boot with EFI."),
        ),
        "What boots the machine.",
        absent={},
    ),
    unsupported("kernelBoot", "Boot a kernel from a container image."),
    unsupported("acpi", "ACPI tables."),
)

FEATURES = Struct(
    "Features of the machine.",
    field(
        "acpi",
        Struct("ACPI.", field("enabled", BOOLEAN, "Whether the machine has ACPI.", default=True)),
        "ACPI, by which the guest is asked to shut down.",
        absent={},
    ),
    unsupported("apic", "APIC settings."),
    unsupported("hyperv", "Enlightenments for Windows."),
    unsupported("hypervPassthrough", "All enlightenments the host has.", neutral=({"enabled": False},)),
    unsupported("smm", "System management mode.", neutral=({"enabled": False},)),
    unsupported("kvm", "Whether KVM is hidden from the guest.", neutral=({"hidden": False}, {})),
    unsupported("pvspinlock", "Paravirtual spin locks.", neutral=({"enabled": False},)),
)
