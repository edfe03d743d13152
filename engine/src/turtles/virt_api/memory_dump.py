# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to dump a guest's memory to a claim. Pure.

Rules and messages: KubeVirt API, VirtualMachineMemoryDumpRequest.
"""

from __future__ import annotations

import math

from turtles.api import quantity
from turtles.api.memory_dump import ASSOCIATING, COMPLETED, DISSOCIATING, FAILED
from turtles.api.objects import Object, get

#: What a dump takes beside the guest's memory, and the part of a file system that is its own.
_OVERHEAD, _FILE_SYSTEM = 100 * 1024**2, 0.055
_MIB = 1024**2


class NotPossible(Exception):
    """The machine or the claim doesn't allow it."""


def claim_of(vm: Object, options: Object) -> str:
    """Return the name of the claim that a request means: the one it names, or the one of the last request.

    :raises ValueError: there is none.
    :raises NotPossible: another one is associated.
    """
    named, before = options.get("claimName") or "", get(vm, "status", "memoryDumpRequest", "claimName") or ""
    if not isinstance(named, str) or not (named or before):
        raise ValueError("Memory dump requires claim name to be set")
    if named and before and named != before:
        raise NotPossible(
            f"can't request memory dump for pvc [{named}] while pvc [{before}] is still associated as the memory dump "
            "pvc"
        )
    return named or str(before)


def check_claim(pvc: Object, vmi: Object) -> None:
    """Check that a guest's memory fits on a claim.

    :raises NotPossible: it doesn't, or not as files.
    """
    spec = pvc.get("spec") or {}
    if spec.get("volumeMode") == "Block":
        raise NotPossible("pvc should be filesystem pvc")
    modes = spec.get("accessModes") or ()
    if modes and all(mode == "ReadOnlyMany" for mode in modes):
        raise NotPossible("pvc access mode can't be read only")
    has = quantity.to_int(get(spec, "resources", "requests", "storage") or 0)
    needs = needed(vmi)
    if has < needs:
        size, least = quantity.format_binary(has), quantity.format_binary(needs)
        raise NotPossible(f"pvc size [{size}] should be bigger then [{least}]")


def needed(vmi: Object) -> int:
    """Return the bytes that a claim has to have for a guest's memory, in whole MiB."""
    domain = vmi["spec"].get("domain") or {}
    memory = get(domain, "memory", "guest") or get(domain, "resources", "requests", "memory") or 0
    return math.ceil((quantity.to_int(memory) + _OVERHEAD) * (1 + _FILE_SYSTEM) / _MIB) * _MIB


def requested(vm: Object, claim: str) -> Object:
    """Return status.memoryDumpRequest of a machine whose memory is to be dumped.

    :raises NotPossible: it is being done already, or undone.
    """
    phase = get(vm, "status", "memoryDumpRequest", "phase")
    if phase == DISSOCIATING:
        raise NotPossible(f"can't dump memory for pvc [{claim}] a remove memory dump request is in progress")
    if phase not in (None, COMPLETED, FAILED):
        raise NotPossible(f"memory dump request for pvc [{claim}] already in progress")
    return {"claimName": claim, "phase": ASSOCIATING}


def removed(vm: Object) -> Object:
    """Return status.memoryDumpRequest of a machine that is to have no claim for its memory any more.

    :raises NotPossible: it has none.
    """
    request = get(vm, "status", "memoryDumpRequest")
    name = vm["metadata"]["name"]
    if not request:
        raise NotPossible(f"can't remove memory dump association for vm {name}, no association found")
    if request.get("remove"):
        raise NotPossible(f"memory dump remove request for pvc [{request['claimName']}] already exists")
    return {"claimName": request["claimName"], "phase": DISSOCIATING, "remove": True}
