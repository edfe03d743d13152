# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the host's name servers what the cluster doesn't know."""

import asyncio
import logging
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.resolver
from dns.name import Name
from dns.rdatatype import RdataType

log = logging.getLogger(__name__)

#: How often each server is asked.
_ROUNDS = 2
#: Questions that wait for answers at a time.
_PENDING = 256
#: Bytes of a datagram that any network takes (DNS Flag Day 2020).
_PAYLOAD = 1232


class UpstreamError(Exception):
    """No server gave an answer; the message says why."""


class Upstream:
    """The servers of a resolv.conf, which is read again when it changes, or some that are given.

    :param servers: addresses; none: those of the file.
    :param own: addresses of this server, which the file may have, too, and which must not be asked.
    :param timeout: seconds for an answer of one server.
    """

    def __init__(
        self,
        servers: tuple[str, ...],
        resolv_conf: Path,
        own: tuple[str, ...] = (),
        *,
        port: int = 53,
        timeout: float = 2.0,
    ) -> None:
        self._given, self._path, self._own = servers, resolv_conf, own
        self._port, self._timeout = port, timeout
        #: When the file was changed, and what it had.
        self._read: tuple[float, tuple[str, ...]] = (-1.0, ())
        self._places = asyncio.Semaphore(_PENDING)

    def servers(self) -> tuple[str, ...]:
        """Return the servers' addresses; none where the file has none, or can't be read."""
        if self._given:
            return self._given
        try:
            changed = self._path.stat().st_mtime
        except OSError:
            return ()
        if changed != self._read[0]:
            addresses: tuple[str, ...] = ()
            try:
                addresses = tuple(str(server) for server in dns.resolver.Resolver(str(self._path)).nameservers)
            except (OSError, dns.exception.DNSException) as error:
                log.warning("no name servers", extra={"file": str(self._path), "error": str(error)})
            self._read = changed, tuple(server for server in addresses if server not in self._own)
        return self._read[1]

    async def ask(self, name: Name, kind: RdataType, *, signed: bool = False) -> dns.message.Message:
        """Return a server's answer.

        :param signed: whether the client wants signatures.
        :raises UpstreamError: there is none.
        """
        servers = self.servers()
        if not servers:
            raise UpstreamError(f"{self._path} has no name servers")
        if self._places.locked():
            raise UpstreamError(f"{_PENDING} questions wait for answers already")
        query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD, want_dnssec=signed)
        async with self._places:
            reason = ""
            for server in servers * _ROUNDS:
                try:
                    answer, _ = await dns.asyncquery.udp_with_fallback(
                        query, server, timeout=self._timeout, port=self._port
                    )
                except (dns.exception.DNSException, OSError, EOFError) as error:
                    reason = f"{server}: {error or type(error).__name__}"
                else:
                    return answer
        raise UpstreamError(reason)
