# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about where a machine runs, and about what only some nodes can do."""

from __future__ import annotations

import base64
import binascii

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import ENCRYPTION_SEV
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.kinds.vmi.rules.machine import has_secure_boot
from turtles.api.language import FORBIDDEN, INVALID, Cause
from turtles.api.objects import get
from turtles.api.placement import affinity_causes, spread_causes
from turtles.api.rules import Causes, Spec

_ENCRYPTION_TDX = "WorkloadEncryptionTDX"
_TYPES = {"sev": "SEV", "snp": "SNP", "tdx": "TDX"}
#: Bit of an SEV-SNP policy that has to be set (AMD, SEV Secure Nested Paging Firmware ABI Specification).
_RESERVED_BIT = 1 << 17
#: Bytes of what SEV-SNP takes encoded in base64.
_SIZES = {"hostData": ("HostData", 32), "idBlock": ("IdBlock", 96), "idAuth": ("IdAuth", 4096)}


def _affinity(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    # The fields of these causes lack "affinity": they are KubeVirt's.
    yield from affinity_causes(spec.get("affinity") or {}, path)


def _spread(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    yield from spread_causes(spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints")


def launch_security(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check what encrypts the guest's memory."""
    found, here = spec["domain"].get("launchSecurity"), f"{path}.launchSecurity"
    if found is None:
        return
    chosen = [kind for kind in _TYPES if found.get(kind) is not None]
    if len(chosen) != 1:
        yield Cause(FORBIDDEN, "One and only one launchSecurity type can be set", here)
        return
    kind = chosen[0]
    gate = _ENCRYPTION_TDX if kind == "tdx" else ENCRYPTION_SEV
    if kind == "tdx" or not config.has_gate(gate):
        yield Cause(INVALID, f"{gate} feature gate is not enabled in kubevirt-config", here)
        return
    name = _TYPES[kind]
    efi = get(spec, "domain", "firmware", "bootloader", "efi")
    if efi is None:
        yield Cause(INVALID, f"{name} requires OVMF (UEFI)", here)
    elif has_secure_boot(spec):
        yield Cause(INVALID, f"{name} does not work along with SecureBoot", here)
    if kind == "snp" and get(efi, "persistent"):
        yield Cause(INVALID, f"{name} does not work along with Persistent EFI variables", here)
    if kind == "snp":
        yield from _snp(spec, found["snp"], here)
    for interface in get(spec, "domain", "devices", "interfaces") or ():
        if interface.get("bootOrder") is not None:
            yield Cause(INVALID, f"{name} does not work with bootable NICs: {interface['name']}", here)


def _snp(spec: Spec, snp: Spec, here: str) -> Causes:
    inner = f"{here}.snp"
    policy = snp.get("policy") or ""
    if policy:
        try:
            number = int(policy, 0)
        except ValueError:
            yield Cause(INVALID, f"{policy} is not a valid SEV-SNP Policy Config", inner)
        else:
            if not number & _RESERVED_BIT:
                message = f"{policy} SEV-SNP Policy Config must have bit 17 (0x{_RESERVED_BIT:X}) set to 1"
                yield Cause(INVALID, message, inner)
    yield from _encoded(snp, "hostData", inner)
    block, authentication = bool(snp.get("idBlock")), bool(snp.get("idAuth"))
    if block != authentication:
        yield Cause(INVALID, "IdBlock and IdAuth must be set together for guest identity attestation", inner)
    if snp.get("authorKey") and not (block and authentication):
        yield Cause(INVALID, "AuthorKey requires both IdBlock and IdAuth to be set", inner)
    yield from _encoded(snp, "idBlock", inner)
    yield from _encoded(snp, "idAuth", inner)
    if snp.get("kernelHashes") is not None and get(spec, "domain", "firmware", "kernelBoot", "container") is None:
        message = "KernelHashes requires direct kernel boot configuration (spec.domain.firmware.kernelBoot)"
        yield Cause(INVALID, message, f"{inner}.kernelHashes")


def _encoded(snp: Spec, field: str, here: str) -> Causes:
    text = snp.get(field) or ""
    name, size = _SIZES[field]
    if not text:
        return
    try:
        right = len(base64.b64decode(text, validate=True)) == size
    except (binascii.Error, ValueError):
        right = False
    if not right:
        message = (
            f"{text} is not a valid SEV-SNP {name} value, must be base64-encoded data that decodes to exactly "
            f"{size} bytes"
        )
        yield Cause(INVALID, message, f"{here}.{field}")


RULES: tuple[Rule, ...] = (_affinity, _spread)
