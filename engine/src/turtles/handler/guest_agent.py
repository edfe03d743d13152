# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the QEMU guest agent about its guest, beside the synchronisation, which never waits for a guest."""

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import libvirt
import libvirt_qemu

from turtles.domain import status

log = logging.getLogger(__name__)

#: Seconds a guest agent may take for one answer.
_TIMEOUT = 5
#: Seconds after which the answers are asked for again (KubeVirt's interval for system information and interfaces).
POLL_INTERVAL = 120.0


@dataclass(frozen=True)
class GuestInfo:
    """What the agent said: status.guestOSInfo, the guest's interface names by MAC, which commands it lacks."""

    missing: tuple[str, ...] = ()
    os_info: dict[str, str] = field(default_factory=dict)
    interface_names: dict[str, str] = field(default_factory=dict)


class GuestAgents:
    """Asks agents on a few threads of its own."""

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="guest-agent")

    def ask(self, domain: "libvirt.virDomain", done: Callable[[GuestInfo | None], None]) -> None:
        """Ask the agent of *domain*; *done* gets the answer, or None if there was none, on another thread."""
        self._pool.submit(self._ask, domain, done)

    def _ask(self, domain: "libvirt.virDomain", done: Callable[[GuestInfo | None], None]) -> None:
        try:
            done(_query(domain))
        except libvirt.libvirtError as error:
            log.info("the guest agent does not answer: %s", error, extra={"domain": domain.name()})
            done(None)
        except Exception:
            log.exception("asking the guest agent failed")
            done(None)


def _query(domain: "libvirt.virDomain") -> GuestInfo:
    domain.agentSetResponseTimeout(_TIMEOUT)
    answer = libvirt_qemu.qemuAgentCommand(domain, '{"execute": "guest-info"}', _TIMEOUT, 0)
    missing = status.missing_agent_commands(json.loads(answer)["return"])
    kinds = libvirt.VIR_DOMAIN_GUEST_INFO_OS | libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES
    try:
        info: dict[str, Any] = domain.guestInfo(kinds)
    except libvirt.libvirtError as error:
        # An agent may have commands switched off.
        log.info("the guest agent has no information: %s", error, extra={"domain": domain.name()})
        info = {}
    return GuestInfo(tuple(missing), status.guest_os_info(info), status.agent_interfaces(info))
