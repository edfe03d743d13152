# SPDX-License-Identifier: GPL-3.0-or-later
"""UDP flows that lead to endpoints which are gone.

TCP notices; a UDP client that keeps sending keeps the translation of its first packet alive, so the kernel has to be
told to forget it ("Virtual IPs and Service Proxies" of the Kubernetes documentation; conntrack(8)).
"""

import errno
import logging
import socket
from typing import Any

from pyroute2 import NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from turtles.standalone.proxy.rules import Backend, Front

log = logging.getLogger(__name__)


def forget(gone: dict[Front, set[Backend]], family: int = socket.AF_INET) -> None:
    """Make the kernel forget flows from some fronts to backends that no longer exist.

    :param family: of their addresses.
    """
    with NFCTSocket(family) as conntrack:
        for front, backends in gone.items():
            # The kernel finds no IPv6 flows by their address
            wanted = NFCTAttrTuple(family, proto=socket.IPPROTO_UDP, dport=front.port)
            for entry in list(conntrack.dump(tuple_orig=wanted)):
                flow, reply = (_tuple(family, entry, f"CTA_TUPLE_{name}") for name in ("ORIG", "REPLY"))
                is_ours = front.address in ("", str(flow.daddr))
                if is_ours and Backend(str(reply.saddr), int(reply.sport)) in backends:
                    _delete(conntrack, flow)


def _tuple(family: int, entry: Any, name: str) -> Any:
    return NFCTAttrTuple.from_netlink(family, entry.get_attr(name))


def _delete(conntrack: Any, flow: Any) -> None:
    try:
        conntrack.entry("del", tuple_orig=flow)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            log.warning("a flow stays", extra={"flow": str(flow), "error": str(error)})
