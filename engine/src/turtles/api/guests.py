# SPDX-License-Identifier: GPL-3.0-or-later
"""What all components have to agree on about a guest where its spec says nothing."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

#: User and group of the launcher, libvirtd and QEMU inside the Pod (KubeVirt's ``status.runtimeUser``).
QEMU_UID = 107
#: Seconds a guest has to shut down.
GRACE_PERIOD_SECONDS = 30
#: Virtual processors of the largest machine that QEMU and KVM have.
MAX_VCPUS = 4096
_DNS_LABEL = 63
#: KubeVirt's namespace for firmware UUIDs derived from the name of a VirtualMachineInstance.
_FIRMWARE_UUID_NAMESPACE = uuid.UUID("6a1a24a1-4061-4607-8bf4-a3963d0c5895")


def grace_period(spec: Mapping[str, Any]) -> int:
    """Return the seconds the guest of a VirtualMachineInstance's spec has to shut down. Less than none is none."""
    seconds = spec.get("terminationGracePeriodSeconds")
    return GRACE_PERIOD_SECONDS if seconds is None else max(0, int(seconds))


def hostname(vmi: Mapping[str, Any]) -> str:
    """Return the host name of a VirtualMachineInstance's Pod and guest, a DNS label (RFC 1123).

    It is `spec.hostname`, else the instance's name up to its first dot, shortened to 63 characters.
    """
    name = str(vmi["spec"].get("hostname") or vmi["metadata"]["name"]).split(".")[0]
    return name[:_DNS_LABEL].rstrip("-")


def launcher_pod_name(vmi: Mapping[str, Any]) -> str:
    """Return the name of a VirtualMachineInstance's Pod: always the same one, so that creating twice makes one Pod."""
    metadata = vmi["metadata"]
    suffix = hashlib.sha256(metadata["uid"].encode()).hexdigest()[:5]
    # Pod names may have 253 characters, and no part of them may end in a hyphen.
    return f"virt-launcher-{metadata['name'][: 253 - 15 - 5].rstrip('-.')}-{suffix}"


def firmware_uuid(name: str) -> str:
    """Return the firmware UUID of a VirtualMachineInstance whose spec has none: always the same for a name."""
    return str(uuid.uuid5(_FIRMWARE_UUID_NAMESPACE, name))
