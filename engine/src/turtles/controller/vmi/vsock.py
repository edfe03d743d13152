# SPDX-License-Identifier: GPL-3.0-or-later
"""VSOCK addresses of machines (KubeVirt user guide, "VSOCK"): each has one that no other machine has. Pure.

An address (CID) has 32 bits. 0 to 2 are the hypervisor's and the host's, the last one means any (vsock(7)).
"""

import hashlib
from collections.abc import Collection, Iterable

from turtles.api.objects import Object, get

_FIRST, _LAST = 3, 2**32 - 2


def is_without_address(vmi: Object) -> bool:
    """Say whether a VMI is to have an address and has none yet."""
    wanted = get(vmi, "spec", "domain", "devices", "autoattachVSOCK")
    return bool(wanted) and not (vmi.get("status") or {}).get("VSOCKCID")


def addresses(vmis: Iterable[Object]) -> frozenset[int]:
    """Return the addresses that VMIs have."""
    return frozenset(cid for vmi in vmis if (cid := (vmi.get("status") or {}).get("VSOCKCID")))


def allocate(uid: str, taken: Collection[int]) -> int:
    """Return an address for the VMI with this *uid*, always the same one where it is free."""
    count = _LAST - _FIRST + 1
    start = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8]) % count
    return next(cid for step in range(count) if (cid := _FIRST + (start + step) % count) not in taken)
