# SPDX-License-Identifier: GPL-3.0-or-later
"""Firmware, features and clock."""

from __future__ import annotations

from turtles.api.language import BOOLEAN, INT64, STRING, UINT32, Struct, field, group, idle


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
    group(
        "utc", "The clock shows UTC; the default.", field("offsetSeconds", INT64, "Seconds added to UTC."), absent={}
    ),
    field("timezone", STRING, "The clock shows the time of this zone, such as Europe/Berlin."),
    group(
        "timer",
        "Timers.",
        field("hpet", _timer("hpet", "High precision event timer.", "tickPolicy"), "High precision event timer."),
        field("kvm", _timer("kvm", "KVM clock."), "KVM clock."),
        field("pit", _timer("pit", "Programmable interval timer.", "tickPolicy"), "Programmable interval timer."),
        field("rtc", _timer("rtc", "Real time clock.", "tickPolicy", "track"), "Real time clock."),
        field("hyperv", _timer("hyperv", "Hyper-V clock."), "Hyper-V clock."),
    ),
)

_EFI = Struct(
    "EFI settings.",
    field("secureBoot", BOOLEAN, "Boot nothing but what is signed, the default; needs features.smm.", absent=True),
    field(
        "persistent",
        BOOLEAN,
        "Whether variables of the firmware outlive the instance, on a claim of the KubeVirt object's "
        "vmStateStorageClass or the default one.",
    ),
)

_KERNEL_CONTAINER = Struct(
    "The image that has kernel and initrd.",
    field("image", STRING, "The image.", required=True),
    field("imagePullSecret", STRING, "Secret with credentials of its registry."),
    field("imagePullPolicy", STRING, "Always, IfNotPresent or Never."),
    field("kernelPath", STRING, "Path of the kernel in the image."),
    field("initrdPath", STRING, "Path of the initrd in the image."),
)

FIRMWARE = Struct(
    "The machine's firmware.",
    field("uuid", STRING, "UUID the guest sees. A VirtualMachine keeps one for life."),
    field("serial", STRING, "System serial number the guest sees."),
    group(
        "bootloader",
        "What boots the machine.",
        group(
            "bios",
            "Boot with BIOS, the default.",
            field("useSerial", BOOLEAN, "Print the BIOS' output to the serial console."),
            absent={},
        ),
        field("efi", _EFI, "Boot with EFI."),
        absent={},
    ),
    group(
        "kernelBoot",
        "A kernel that is booted without a boot loader.",
        field("kernelArgs", STRING, "The kernel's command line."),
        field("container", _KERNEL_CONTAINER, "The image that has kernel and initrd."),
    ),
    group(
        "acpi",
        "ACPI tables of a license.",
        field("slicNameRef", STRING, "Volume (a secret) whose key slic.bin is the SLIC table."),
        field("msdmNameRef", STRING, "Volume (a secret) whose key msdm.bin is the MSDM table."),
    ),
)

_ENABLED = field("enabled", BOOLEAN, "Whether the guest has it.", default=True)
_STATE = Struct("A feature.", _ENABLED)
_OFF = ({"enabled": False},)

_HYPERV = Struct(
    "Enlightenments for Windows.",
    field("relaxed", _STATE, "Don't crash for a watchdog timeout."),
    field("vapic", _STATE, "Paravirtual interrupts."),
    group(
        "spinlocks",
        "How often a spin lock is tried.",
        _ENABLED,
        field("spinlocks", UINT32, "How often; at least 4096, which is the default."),
    ),
    field("vpindex", _STATE, "Index of the virtual processor."),
    field("runtime", _STATE, "Time the virtual processor has run."),
    field("synic", _STATE, "Synthetic interrupt controller; needs vpindex."),
    group(
        "synictimer",
        "Timers of the synthetic interrupt controller; needs synic.",
        _ENABLED,
        field("direct", _STATE, "Direct mode."),
    ),
    field("reset", _STATE, "Reset by hypercall."),
    group("vendorid", "Vendor of the hypervisor.", _ENABLED, field("vendorid", STRING, "Up to 12 characters.")),
    field("frequencies", _STATE, "Frequencies of TSC and APIC."),
    field("reenlightenment", _STATE, "Tell of a changed TSC frequency."),
    group(
        "tlbflush",
        "Flush TLBs by hypercall; needs vpindex.",
        _ENABLED,
        idle("direct", "Flushes of nested guests, for which libvirt here is too old.", _STATE, neutral=_OFF),
        idle("extended", "Flushes of a part, for which libvirt here is too old.", _STATE, neutral=_OFF),
    ),
    field("ipi", _STATE, "Send interrupts by hypercall; needs vpindex."),
    field("evmcs", _STATE, "Enlightened VMCS; needs vapic and the processor feature vmx."),
)

FEATURES = Struct(
    "Features of the machine.",
    group(
        "acpi",
        "ACPI, by which the guest is asked to shut down.",
        field("enabled", BOOLEAN, "Whether the machine has ACPI.", default=True),
        absent={},
    ),
    group(
        "apic",
        "APIC settings.",
        _ENABLED,
        field("endOfInterrupt", BOOLEAN, "Whether the end of interrupts is notified."),
    ),
    field("hyperv", _HYPERV, "Enlightenments for Windows."),
    group(
        "hypervPassthrough",
        "All enlightenments for Windows that the node has.",
        field("enabled", BOOLEAN, "Whether the guest has them."),
    ),
    field("smm", _STATE, "System management mode, which secure boot needs."),
    group(
        "kvm",
        "How KVM shows itself to the guest.",
        field("hidden", BOOLEAN, "Whether it is hidden from the guest."),
        absent={},
    ),
    field("pvspinlock", _STATE, "Paravirtual spin locks."),
)

LAUNCH_SECURITY = Struct(
    "Encryption of the guest's memory. The machine waits for a node whose processor can do it.",
    group(
        "sev",
        "AMD SEV.",
        group(
            "policy", "The guest's policy.", field("encryptedState", BOOLEAN, "Whether registers are encrypted too.")
        ),
        field("dhCert", STRING, "Base64 encoded key of the guest's owner."),
        field("session", STRING, "Base64 encoded session blob of the guest's owner."),
        group(
            "attestation",
            "The guest waits for its owner to check the node and what is launched; it is started paused.",
        ),
    ),
    group(
        "snp",
        "AMD SEV-SNP.",
        field("policy", STRING, "The guest's policy, a number of 64 bits."),
        field("hostData", STRING, "32 bytes for the guest, base64 encoded."),
        field("idBlock", STRING, "ID block, base64 encoded."),
        field("idAuth", STRING, "ID authentication, base64 encoded."),
        field("authorKey", BOOLEAN, "Whether idAuth has a key of the author."),
        field("vcek", BOOLEAN, "Whether the guest may choose the VCEK."),
        field("kernelHashes", BOOLEAN, "Whether kernel, initrd and arguments are measured."),
        group("attestation", "Nothing: such a guest asks its processor itself."),
    ),
    group("tdx", "Intel TDX, behind the gate WorkloadEncryptionTDX, which is off."),
)
