# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about where a machine runs, and about what only some nodes can do."""

from __future__ import annotations

import base64
import binascii

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import ENCRYPTION_SEV
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.kinds.vmi.rules.machine import has_secure_boot, is_smm_on
from turtles.api.language import FORBIDDEN, INVALID, NOT_SUPPORTED, UNSUPPORTED, Cause
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
    """Check what encrypts the guest's memory. On s390x, Secure Execution needs no more to be said."""
    found, architecture = spec["domain"].get("launchSecurity"), spec.get("architecture")
    if found is None or architecture == "s390x":
        return
    if architecture == "amd64":
        yield from _encryption(spec, found, f"{path}.launchSecurity", config)
    else:
        message = f"No launchSecurity support for architecture: {architecture}"
        yield Cause(INVALID, message, f"{path}.architecture")


def _encryption(spec: Spec, found: Spec, here: str, config: ClusterConfiguration) -> Causes:
    chosen = [kind for kind in _TYPES if found.get(kind) is not None]
    if len(chosen) != 1:
        yield Cause(FORBIDDEN, "One and only one launchSecurity type can be set", here)
        return
    kind = chosen[0]
    gate = _ENCRYPTION_TDX if kind == "tdx" else ENCRYPTION_SEV
    if not config.has_gate(gate):
        yield Cause(INVALID, f"{gate} feature gate is not enabled in kubevirt-config", here)
        return
    name = _TYPES[kind]
    if kind == "tdx" and is_smm_on(spec):
        yield Cause(INVALID, f"{name} does not work along with SMM", here)
    efi = get(spec, "domain", "firmware", "bootloader", "efi")
    if efi is None:
        yield Cause(INVALID, f"{name} requires OVMF (UEFI)", here)
    elif kind != "tdx" and has_secure_boot(spec):
        yield Cause(INVALID, f"{name} does not work along with SecureBoot", here)
    if kind != "sev" and get(efi, "persistent"):
        yield Cause(INVALID, f"{name} does not work along with Persistent EFI variables", here)
    if get(found, "sev", "attestation") is not None and spec.get("startStrategy") != "Paused":
        yield Cause(INVALID, "SEV attestation requires VMI StartStrategy 'Paused'", here)
    if kind == "snp":
        yield from _snp(spec, found["snp"], here)
    for interface in get(spec, "domain", "devices", "interfaces") or ():
        if interface.get("bootOrder") is not None:
            yield Cause(INVALID, f"{name} does not work with bootable NICs: {interface['name']}", here)


def _snp(spec: Spec, snp: Spec, here: str) -> Causes:
    inner = f"{here}.snp"
    policy = snp.get("policy") or ""
    if policy:
        number = _number(policy)
        if number is None:
            yield Cause(INVALID, f"{policy} is not a valid SEV-SNP Policy Config", inner)
        elif not number & _RESERVED_BIT:
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


def _number(text: str) -> int | None:
    """Return a number of 64 bits as Go reads it, decimal or with a prefix 0x, 0b, 0o or 0. None if it isn't one."""
    if not text.isascii() or not text[0].isdigit():
        return None
    try:
        number = int(text, 8 if text.isdigit() and text[0] == "0" else 0)
    except ValueError:
        return None
    return number if number < 1 << 64 else None


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


def _trust_domain(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    here = f"{path}.domain.launchSecurity.tdx"
    if get(spec, "domain", "launchSecurity", "tdx") is not None:
        yield Cause(NOT_SUPPORTED, f"{here} is {UNSUPPORTED}: it takes libvirt 11.6 and QEMU 10.1", here)


RULES: tuple[Rule, ...] = (_affinity, _spread)
FUTILE: tuple[Rule, ...] = (_trust_domain,)
