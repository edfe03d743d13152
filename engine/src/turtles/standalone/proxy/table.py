# SPDX-License-Identifier: GPL-3.0-or-later
"""The nftables table of an instance's Services in the kernel, one for each family: one transaction per change.

A packet sees the rules of before or after a change, never half of it. The table stays when the process ends that made
it, so that a restart isn't noticed; the next process replaces it as a whole, but for the clients that session affinity
remembers.
"""

import contextlib
import ipaddress
import logging
import socket
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from turtles.standalone import nft
from turtles.standalone.nft import NftError
from turtles.standalone.proxy import flows
from turtles.standalone.proxy.rules import Rules, Settings, changes, frame

log = logging.getLogger(__name__)

_CONF = Path("/proc/sys/net/ipv4/conf")
_ESRCH, _EEXIST = 3, 17


class TableError(Exception):
    """The kernel rejects the rules; the message is nft's."""


class Table:
    """Keeps the kernel's table up to date.

    :param bridges: interfaces of the Pods; answers to 127.0.0.1 arrive there.
    """

    def __init__(self, settings: Settings, bridges: tuple[str, ...] = ()) -> None:
        self._settings, self._bridges = settings, bridges
        self._applied: Rules | None = None

    def apply(self, wanted: Rules) -> None:
        """Update the table.

        :raises TableError: the kernel refuses; the rules of before still hold.
        """
        clear: list[str] = []
        lost = self._applied.lost(wanted) if self._applied is not None else {}
        if self._applied is None:
            _route(self._settings, wanted=True)
            first, _ = changes(self._settings, Rules(), wanted)
            _nft([*frame(self._settings), *first, *_remembered(self._settings, wanted.sets)])
        else:
            lines, clear = changes(self._settings, self._applied, wanted)
            try:
                _nft(lines)
            except TableError:
                # Somebody else has changed the table: the next try writes all of it again.
                self._applied = None
                raise
        self._applied = wanted
        self._allow_loopback()
        if lost:
            flows.forget(lost, socket.AF_INET if self._settings.version == 4 else socket.AF_INET6)
        try:
            _nft(clear)
        except TableError as error:
            # Chains that nothing leads to do no harm; they go when the table is written again.
            log.debug("unused chains remain", extra={"error": str(error)})
            self._applied = None

    def _allow_loopback(self) -> None:
        """Let connections to 127.0.0.1 be led to Pods: their packets and answers pass the Pods' bridge."""
        loopback = ipaddress.ip_network("127.0.0.0/8")
        ranges = (ipaddress.ip_network(text) for text in self._settings.node_port_ranges)
        if not any(each.version == 4 and each.overlaps(loopback) for each in ranges):
            return
        for bridge in self._bridges:
            path = _CONF / bridge / "route_localnet"
            # The bridge comes with the first Pod.
            with contextlib.suppress(FileNotFoundError):
                if path.read_text().strip() != "1":
                    path.write_text("1")


def remove(settings: Settings) -> bool:
    """Remove everything; say whether there was anything.

    :raises TableError: the route can't be removed.
    :raises turtles.standalone.nft.NftError: the table can't.
    """
    routed = _route(settings, wanted=False)
    return nft.remove_table(settings.table, settings.family) or routed


def _remembered(settings: Settings, sets: Iterable[str]) -> list[str]:
    """Return commands that give sets the clients that those of their names have now, for what is left of it."""
    table = (settings.family, settings.table)
    done = nft.ask("--json", "list", "table", *table)
    if done.returncode:
        return []
    remembered = {
        str(one["set"]["name"]): one["set"].get("elem") or ()
        for one in msgspec.json.decode(done.stdout)["nftables"]
        if "set" in one
    }
    lines = []
    for name in sets:
        clients = [one["elem"] for one in remembered.get(name, ()) if isinstance(one, dict)]
        # What has less than a second left isn't worth it, and without a time it would stay for ever.
        texts = [_element(one) for one in clients if one.get("expires")]
        if texts:
            lines.append(f"add element {' '.join(table)} {name} {{ {', '.join(texts)} }}")
    return lines


def _element(client: dict[str, Any]) -> str:
    # A time that is the set's own isn't listed.
    whole = f" timeout {client['timeout']}s" if "timeout" in client else ""
    return f"{client['val']}{whole} expires {client['expires']}s"


def _nft(lines: list[str]) -> None:
    if not lines:
        return
    try:
        nft.run("\n".join(lines) + "\n")
    except NftError as error:
        raise TableError(f"nft refused the rules of Services: {error}") from error


def _route(settings: Settings, wanted: bool) -> bool:
    """Give cluster IPs a route, or remove it, with those of earlier settings; say whether something changed.

    The kernel looks for a route before the rules get to see a packet of this machine; without a default route there
    would be none. Where the route leads doesn't matter: what the rules don't translate, they reject. Its metric says
    whose it is. In IPv6 a route to the loopback interface leads nowhere, unless it says that the addresses are this
    machine's.
    """
    metric = zlib.crc32(settings.table.encode()) >> 1 or 1
    ours: dict[str, Any] = {"oif": 1, "proto": "static", "priority": metric}
    ours |= {"scope": "link"} if settings.version == 4 else {"type": "local"}
    family = socket.AF_INET if settings.version == 4 else socket.AF_INET6
    changed = False
    with IPRoute() as ip:
        try:
            for route in ip.get_routes(family=family, oif=1, priority=metric):
                destination = f"{route.get_attr('RTA_DST')}/{route['dst_len']}"
                if not (wanted and destination == settings.service_range):
                    ip.route("del", dst=destination, **ours)
                    changed = True
            if wanted:
                ip.route("add", dst=settings.service_range, **ours)
                changed = True
        except NetlinkError as error:
            if error.code not in (_EEXIST, _ESRCH):
                raise TableError(f"the route of {settings.service_range} can't be set: {error}") from error
    return changed
