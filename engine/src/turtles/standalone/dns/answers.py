# SPDX-License-Identifier: GPL-3.0-or-later
"""From a client's message to the answer's: the cluster's names from its zone, others from upstream."""

import logging
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.reversename
import dns.rrset
from dns.message import Message
from dns.name import Name
from dns.rdatatype import RdataType

from turtles.standalone.dns.upstream import Upstream, UpstreamError
from turtles.standalone.dns.zone import NOTHING, TTL, Found, Record, Zone

log = logging.getLogger(__name__)

#: Aliases that are followed for one question.
_ALIASES = 8
#: The domains of addresses.
_REVERSE = (dns.reversename.ipv4_reverse_domain, dns.reversename.ipv6_reverse_domain)


class Answers:
    """Answers messages.

    :param own: networks of the cluster, whose addresses nobody else knows.
    :param ready: whether the zone knows all Services by now.
    """

    def __init__(
        self, zone: Zone, upstream: Upstream, own: Iterable[IPv4Network | IPv6Network], ready: Callable[[], bool]
    ) -> None:
        self._zone, self._upstream, self._ready = zone, upstream, ready
        self._own = tuple(own)

    async def answer(self, data: bytes) -> Message | None:
        """Return the answer to a message; None for what gets none, such as garbage and answers."""
        try:
            query = dns.message.from_wire(data)
        except dns.message.ShortHeader:
            return None
        except dns.exception.DNSException:
            return _malformed(data)
        if query.flags & dns.flags.QR:
            return None
        reply = dns.message.make_response(query, recursion_available=True, our_payload=1232)
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            reply.set_rcode(dns.rcode.NOTIMP)
            return reply
        (question,) = query.question
        if question.rdclass != dns.rdataclass.IN:
            reply.set_rcode(dns.rcode.REFUSED)
            return reply
        try:
            await self._fill(
                reply, question.name, RdataType.make(question.rdtype), bool(query.ednsflags & dns.flags.DO)
            )
        except UpstreamError as error:
            log.warning("no answer", extra={"question": str(question.name), "error": str(error)})
            reply.set_rcode(dns.rcode.SERVFAIL)
        return reply

    async def _fill(self, reply: Message, name: Name, kind: RdataType, signed: bool) -> None:
        for _ in range(_ALIASES):
            answer = self._known(name, kind)
            if answer is None:
                _take(reply, await self._upstream.ask(name, kind, signed=signed))
                return
            if not self._ready():
                raise UpstreamError("the API hasn't been read yet")
            reply.flags |= dns.flags.AA
            _add(reply.answer, answer.records)
            _add(reply.additional, answer.additional)
            if answer.alias is None:
                if not answer.records:
                    _add(reply.authority, [(self._zone.origin, self._zone.soa())])
                    if not answer.exists:
                        reply.set_rcode(dns.rcode.NXDOMAIN)
                return
            name = answer.alias
        raise UpstreamError("too many aliases")

    def _known(self, name: Name, kind: RdataType) -> Found | None:
        """Return what the cluster knows about a name; None for names that aren't the cluster's."""
        if name.is_subdomain(self._zone.origin):
            return self._zone.lookup(name, kind)
        if not any(name.is_subdomain(domain) for domain in _REVERSE):
            return None
        answer = self._zone.reverse(name)
        if answer is None:
            return NOTHING if self._is_own(name) else None
        return answer if kind in (RdataType.PTR, RdataType.ANY) else Found(exists=True)

    def _is_own(self, name: Name) -> bool:
        network = _network_of(name)
        if isinstance(network, IPv4Network):
            return any(isinstance(own, IPv4Network) and network.subnet_of(own) for own in self._own)
        return any(network and isinstance(own, IPv6Network) and network.subnet_of(own) for own in self._own)


def _network_of(name: Name) -> IPv4Network | IPv6Network | None:
    """Return the network whose addresses have names below one of the reverse domains; None if that makes no sense."""
    domain = next(each for each in _REVERSE if name.is_subdomain(each))
    labels = [label.decode(errors="replace") for label in name.relativize(domain).labels[::-1]]
    try:
        if domain == dns.reversename.ipv4_reverse_domain:
            return IPv4Network((".".join([*labels, "0", "0", "0", "0"][: max(4, len(labels))]), 8 * len(labels)))
        digits = "".join(labels).ljust(32, "0") if all(len(label) == 1 for label in labels) else ""
        return IPv6Network((int(digits, 16), 4 * len(labels)))
    except ValueError:
        return None


def _malformed(data: bytes) -> Message | None:
    """Return what is said to a message that nobody understands (RFC 1035)."""
    if data[2] & 0x80:
        return None
    reply = dns.message.Message(id=int.from_bytes(data[:2], "big"))
    reply.flags = dns.flags.QR
    reply.set_rcode(dns.rcode.FORMERR)
    return reply


def _add(section: list[dns.rrset.RRset], records: Iterable[Record]) -> None:
    sets: dict[tuple[Name, int], dns.rrset.RRset] = {}
    for name, record in records:
        key = name, record.rdtype
        if key not in sets:
            sets[key] = dns.rrset.RRset(name, record.rdclass, record.rdtype)
            section.append(sets[key])
        sets[key].add(record, TTL)


def _take(reply: Message, answer: Message) -> None:
    """Hand on what another server says."""
    reply.answer += answer.answer
    reply.authority += answer.authority
    reply.additional += answer.additional
    reply.set_rcode(answer.rcode())
    reply.flags |= answer.flags & dns.flags.AD
