# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a launcher Pod needs in addition to its guest's. Pure.

The numbers are measured, see "Memory of a virtual machine's Pod" in the operations manual; KubeVirt reserves 256 to
288 MiB for the same machine. What is reserved is what a guest can make its Pod use, so that one which uses all of its
memory isn't killed for the Pod's limit.
"""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

from turtles.api import labels, quantity
from turtles.api.texts import to_number
from turtles.controller.state_claims import has_tpm
from turtles.domain.definition import cpu_topology, emulation_cache, guest_memory

_MIB = 1024 * 1024
#: virt-launcher, libvirtd, QEMU with the usual devices, and what the kernel keeps for them.
BASE = 68 * _MIB
#: A virtual CPU: its thread's stack, its state, its share of the I/O in flight.
VCPU = 4 * _MIB
#: Memory of the VGA card, which the guest may fill, and the picture that is sent.
GRAPHICS = 20 * _MIB
#: The flash memories of EFI: its program, which is copied to where it runs, and its variables.
EFI = 12 * _MIB
#: The process that calls hook sidecars, for the seconds it runs.
HOOKS = 48 * _MIB
#: passt, and the kernel's part of a socket for each port of TCP and UDP (4.5 KiB) where no ports are named.
PASST, ALL_PORTS = 24 * _MIB, 576 * _MIB
#: What is pinned for a guest whose memory is encrypted: buffers for its devices (KubeVirt's).
ENCRYPTION = 256 * _MIB
#: swtpm, and its state.
TPM = 16 * _MIB
#: What the kernel pins for devices of the node that the guest has (KubeVirt's).
ASSIGNED_DEVICES = 1024 * _MIB
#: Page tables: eight bytes for each page of 4 KiB, once for QEMU and once for the guest.
PAGE_TABLES = 256
#: The disk with the metrics, and a process that serves a filesystem (KubeVirt's numbers).
METRICS, FILESYSTEM = _MIB, 80 * 10**6
#: For each virtual CPU, an emulator keeps addresses that it looked up, beside translated code.
EMULATION_VCPU = 4 * _MIB


def shortage(vmi: Mapping[str, Any], pod: Mapping[str, Any], guest: int) -> str:
    """Return why a machine's guest can't have so many bytes of memory in its Pod; nothing if it can.

    :param pod: as the server has it.
    """
    compute = pod["spec"]["containers"][0]
    limit = ((compute.get("resources") or {}).get("limits") or {}).get("memory")
    known = to_number((pod["metadata"].get("annotations") or {}).get(labels.MEMORY_OVERHEAD) or "")
    if limit is None or known is None:
        return ""
    before = quantity.to_int(limit)
    at_boot = quantity.to_int((vmi["status"].get("memory") or {}).get("guestAtBoot") or 0)
    needed = guest + known + max(0, guest - at_boot) // PAGE_TABLES
    if needed <= before:
        return ""
    return (
        f"the memory limit of its Pod, {before // _MIB}Mi, is less than the {math.ceil(needed / _MIB)}Mi that the "
        "machine needs"
    )


def overhead(spec: Mapping[str, Any], *, kvm: bool, ratio: float = 1, hooks: bool = False) -> int:
    """Return the bytes a Pod needs in addition to the guest's memory.

    :param spec: of the VMI.
    :param kvm: whether the guest runs on the processor itself.
    :param hooks: sidecars change the domain.
    :param ratio: factor that the installation adds for guests which need more than was measured.
    """
    vcpus = cpu_topology(spec).vcpus
    needed = BASE + VCPU * vcpus
    devices = (spec.get("domain") or {}).get("devices") or {}
    if devices.get("autoattachGraphicsDevice") is not False:
        needed += GRAPHICS
    needed += FILESYSTEM * len(devices.get("filesystems") or ())
    needed += METRICS * sum("downwardMetrics" in volume for volume in spec.get("volumes") or ())
    if has_tpm(spec):
        needed += TPM
    for interface in devices.get("interfaces") or ():
        if interface.get("passtBinding") is not None and interface.get("state") != "absent":
            needed += PASST + (0 if interface.get("ports") else ALL_PORTS)
    functions = any(each.get("sriov") is not None for each in devices.get("interfaces") or ())
    if devices.get("gpus") or devices.get("hostDevices") or functions:
        needed += ASSIGNED_DEVICES
    if not kvm:
        needed += emulation_cache(spec) * _MIB + EMULATION_VCPU * vcpus
    domain = spec.get("domain") or {}
    if ((domain.get("firmware") or {}).get("bootloader") or {}).get("efi") is not None:
        needed += EFI
    if domain.get("launchSecurity") is not None:
        needed += ENCRYPTION
    if hooks:
        needed += HOOKS
    reserved = ((domain.get("memory") or {}).get("reservedOverhead") or {}).get("addedOverhead")
    if reserved is not None:
        needed += quantity.to_int(reserved)
    with contextlib.suppress(ValueError):  # admission refuses a guest without memory
        needed += guest_memory(spec) // PAGE_TABLES
    return math.ceil(needed * ratio)
