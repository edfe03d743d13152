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


def forget(gone: dict[Front, set[Backend]]) -> None:
    """Make the kernel forget flows from some fronts to backends that no longer exist."""
    with NFCTSocket() as conntrack:
        for front, backends in gone.items():
            wanted = NFCTAttrTuple(proto=socket.IPPROTO_UDP, dport=front.port)
            if front.address:
                wanted.daddr = front.address
            for entry in list(conntrack.dump(tuple_orig=wanted)):
                reply = _tuple(entry, "CTA_TUPLE_REPLY")
                if Backend(str(reply.saddr), int(reply.sport)) in backends:
                    _delete(conntrack, _tuple(entry, "CTA_TUPLE_ORIG"))


def _tuple(entry: Any, name: str) -> Any:
    return NFCTAttrTuple.from_netlink(socket.AF_INET, entry.get_attr(name))


def _delete(conntrack: Any, flow: Any) -> None:
    try:
        conntrack.entry("del", tuple_orig=flow)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            log.warning("a flow stays", extra={"flow": str(flow), "error": str(error)})
