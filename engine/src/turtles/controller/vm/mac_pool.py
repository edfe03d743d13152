# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool of MAC addresses, from which interfaces of VirtualMachines get theirs, each only once.

Off unless a range is named; addresses are derived from the machine's uid then. One that was allotted is in the template
as if somebody had declared it, as with KubeMacPool, and free again when the VirtualMachine is gone.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api.kinds.vmi.interfaces import ABSENT, networks_of, of
from turtles.api.objects import Object
from turtles.domain.connections import is_behind_pod
from turtles.domain.interface_names import POD_INTERFACE, pod_interface_name

_BITS = 48
_MULTICAST = 1 << 40


class MacPoolError(ValueError):
    """No range of MAC addresses, or none of them is free. The message says what to do."""


@dataclass(frozen=True)
class Range:
    """The addresses from *first* to *last*, as numbers."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "Range":
        """Read START-END.

        :raises MacPoolError: it isn't a range of addresses that interfaces can have.
        """
        try:
            first, last = (_number(part.strip()) for part in text.split("-"))
        except ValueError:
            words = f"{text!r} is not a range of MAC addresses; write it as 02:00:00:00:00:00-02:00:00:00:ff:ff"
            raise MacPoolError(words) from None
        if first > last:
            raise MacPoolError(f"{text!r} is not a range of MAC addresses: its end is lower than its start")
        if first >> 40 != last >> 40 or first & _MULTICAST:
            raise MacPoolError(f"{text!r}: the first octet must be the same at both ends, and an even number")
        return cls(first, last)

    def __len__(self) -> int:
        """Return how many there are."""
        return self.last - self.first + 1


def _number(mac: str) -> int:
    octets = mac.split(":")
    if len(octets) != _BITS // 8 or not all(len(octet) == 2 for octet in octets):
        raise ValueError(mac)
    return int("".join(octets), 16)


class MacPool:
    """Allots addresses.

    :param is_taken: says whether a VirtualMachine or an instance has an address.
    """

    def __init__(self, addresses: Range, is_taken: Callable[[str], bool]) -> None:
        self._range, self._is_taken = addresses, is_taken
        #: Held from the choice of addresses until they are stored, and known to be.
        self.lock = threading.Lock()

    def completed(self, vm: Object, vmi: Object | None) -> list[Object] | None:
        """Return the interfaces of a VM's template with addresses; None if they have theirs.

        Those of an instance that is there keep what they have.

        :raises MacPoolError: no address is free.
        """
        template = vm["spec"]["template"]["spec"]
        known = of(vmi["spec"]) if vmi is not None else {}
        lacking = {name for name in _without_address(template) if name not in known}
        if not lacking:
            return None
        chosen: set[str] = set()
        found = []
        for name, interface in of(template).items():
            if name in lacking:
                interface = {**interface, "macAddress": self._free(f"{vm['metadata']['uid']}/{name}", chosen)}
                chosen.add(interface["macAddress"])
            found.append(interface)
        return found

    def _free(self, key: str, chosen: set[str]) -> str:
        start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % len(self._range)
        for offset in range(len(self._range)):
            number = self._range.first + (start + offset) % len(self._range)
            mac = f"{number:012x}"
            mac = ":".join(mac[index : index + 2] for index in range(0, len(mac), 2))
            if mac not in chosen and not self._is_taken(mac):
                return mac
        raise MacPoolError("the MAC address pool is exhausted; extend its range, or delete VirtualMachines")


def _without_address(template: Mapping[str, Any]) -> Iterator[str]:
    """Yield interfaces that are to get an address. One with a bridge on the Pod network has the Pod's."""
    networks = networks_of(template)
    for name, interface in of(template).items():
        on_pod = name in networks and pod_interface_name(networks[name]) == POD_INTERFACE
        if interface.get("macAddress") or interface.get("state") == ABSENT or name not in networks:
            continue
        if is_behind_pod(interface) or not on_pod:
            yield name
