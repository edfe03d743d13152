# SPDX-License-Identifier: GPL-3.0-or-later
"""Firmware, features and clock."""

from __future__ import annotations

from turtles.api.language import BOOLEAN, INT64, STRING, UINT32, Struct, field, idle


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

_EFI = Struct(
    "EFI settings.",
    field("secureBoot", BOOLEAN, "Boot nothing but what is signed, the default; needs features.smm.", absent=True),
    field(
        "persistent",
        BOOLEAN,
        "Whether variables of the firmware outlive the instance, on a claim. Needs vmStateStorageClass of the KubeVirt "
        "object.",
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
    field(
        "bootloader",
        Struct(
            "What boots the machine.",
            field(
                "bios",
                Struct(
                    "BIOS settings.",
                    field("useSerial", BOOLEAN, "Print the BIOS' output to the serial console."),
                ),
                "Boot with BIOS, the default.",
                absent={},
            ),
            field("efi", _EFI, "Boot with EFI."),
        ),
        "What boots the machine.",
        absent={},
    ),
    field(
        "kernelBoot",
        Struct(
            "A kernel that is booted without a boot loader.",
            field("kernelArgs", STRING, "The kernel's command line."),
            field("container", _KERNEL_CONTAINER, "The image that has kernel and initrd."),
        ),
        "A kernel that is booted without a boot loader.",
    ),
    field(
        "acpi",
        Struct(
            "ACPI tables of a license.",
            field("slicNameRef", STRING, "Volume (a secret) whose key slic.bin is the SLIC table."),
            field("msdmNameRef", STRING, "Volume (a secret) whose key msdm.bin is the MSDM table."),
        ),
        "ACPI tables of a license.",
    ),
)

_ENABLED = field("enabled", BOOLEAN, "Whether the guest has it.", default=True)
_STATE = Struct("A feature.", _ENABLED)
_OFF = ({"enabled": False},)

_HYPERV = Struct(
    "Enlightenments for Windows.",
    field("relaxed", _STATE, "Don't crash for a watchdog timeout."),
    field("vapic", _STATE, "Paravirtual interrupts."),
    field(
        "spinlocks",
        Struct(
            "How often a spin lock is tried.",
            _ENABLED,
            field("spinlocks", UINT32, "How often; at least 4096, which is the default."),
        ),
        "How often a spin lock is tried.",
    ),
    field("vpindex", _STATE, "Index of the virtual processor."),
    field("runtime", _STATE, "Time the virtual processor has run."),
    field("synic", _STATE, "Synthetic interrupt controller; needs vpindex."),
    field(
        "synictimer",
        Struct("Its timers; needs synic.", _ENABLED, field("direct", _STATE, "Direct mode.")),
        "Timers of the synthetic interrupt controller; needs synic.",
    ),
    field("reset", _STATE, "Reset by hypercall."),
    field(
        "vendorid",
        Struct("Vendor of the hypervisor.", _ENABLED, field("vendorid", STRING, "Up to 12 characters.")),
        "Vendor of the hypervisor.",
    ),
    field("frequencies", _STATE, "Frequencies of TSC and APIC."),
    field("reenlightenment", _STATE, "Tell of a changed TSC frequency."),
    field(
        "tlbflush",
        Struct(
            "Flushes of the TLB.",
            _ENABLED,
            idle("direct", "Flushes of nested guests, for which libvirt here is too old.", _STATE, neutral=_OFF),
            idle("extended", "Flushes of a part, for which libvirt here is too old.", _STATE, neutral=_OFF),
        ),
        "Flush TLBs by hypercall; needs vpindex.",
    ),
    field("ipi", _STATE, "Send interrupts by hypercall; needs vpindex."),
    field("evmcs", _STATE, "Enlightened VMCS; needs vapic and the processor feature vmx."),
)

FEATURES = Struct(
    "Features of the machine.",
    field(
        "acpi",
        Struct("ACPI.", field("enabled", BOOLEAN, "Whether the machine has ACPI.", default=True)),
        "ACPI, by which the guest is asked to shut down.",
        absent={},
    ),
    field(
        "apic",
        Struct("APIC.", _ENABLED, field("endOfInterrupt", BOOLEAN, "Whether the end of interrupts is notified.")),
        "APIC settings.",
    ),
    field("hyperv", _HYPERV, "Enlightenments for Windows."),
    field(
        "hypervPassthrough",
        Struct("All enlightenments the node has.", field("enabled", BOOLEAN, "Whether the guest has them.")),
        "All enlightenments for Windows that the node has.",
    ),
    field("smm", _STATE, "System management mode, which secure boot needs."),
    field(
        "kvm",
        Struct("How KVM shows itself.", field("hidden", BOOLEAN, "Whether it is hidden from the guest.")),
        "How KVM shows itself to the guest.",
        absent={},
    ),
    field("pvspinlock", _STATE, "Paravirtual spin locks."),
)

LAUNCH_SECURITY = Struct(
    "Encryption of the guest's memory. The machine waits for a node whose processor can do it.",
    field(
        "sev",
        Struct(
            "AMD SEV.",
            field(
                "policy",
                Struct("The guest's policy.", field("encryptedState", BOOLEAN, "Whether registers are encrypted too.")),
                "The guest's policy.",
            ),
            field("dhCert", STRING, "Base64 encoded key of the guest's owner."),
            field("session", STRING, "Base64 encoded session blob of the guest's owner."),
            field(
                "attestation",
                Struct("Attestation."),
                "The guest waits for its owner to check the node and what is launched; it is started paused.",
            ),
        ),
        "AMD SEV.",
    ),
    field(
        "snp",
        Struct(
            "AMD SEV-SNP.",
            field("policy", STRING, "The guest's policy, a number of 64 bits."),
            field("hostData", STRING, "32 bytes for the guest, base64 encoded."),
            field("idBlock", STRING, "ID block, base64 encoded."),
            field("idAuth", STRING, "ID authentication, base64 encoded."),
            field("authorKey", BOOLEAN, "Whether idAuth has a key of the author."),
            field("vcek", BOOLEAN, "Whether the guest may choose the VCEK."),
            field("kernelHashes", BOOLEAN, "Whether kernel, initrd and arguments are measured."),
            field("attestation", Struct("Attestation."), "Nothing: such a guest asks its processor itself."),
        ),
        "AMD SEV-SNP.",
    ),
    field("tdx", Struct("Intel TDX."), "Intel TDX, behind the gate WorkloadEncryptionTDX, which is off."),
)
