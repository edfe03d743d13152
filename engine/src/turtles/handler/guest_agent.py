# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries QEMU guest agents, separately from the synchronisation, which never waits for a guest."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from turtles.domain import agent
from turtles.domain.guest_info import GuestInfo, agent_interfaces, guest_os_info, missing_agent_commands
from turtles.domain.xml import AnswerError
from turtles.handler.domain import Domain
from turtles.handler.errors import LauncherBusy, LibvirtError
from turtles.handler.guest import Guest

log = logging.getLogger(__name__)

#: Seconds after which the answers are asked for again (KubeVirt's interval for system information and interfaces).
POLL_INTERVAL = 120.0
#: How many agents are waited for at once. One that never answers holds a thread up for an eighth of its interval.
_THREADS = 32


class GuestAgents:
    """Queries agents on a few threads of its own."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="guest-agent")

    def refresh(self, guest: Guest, domain: Domain, connected: bool, on_answer: Callable[[], None]) -> None:
        """Ask the agent of a guest, if it is there and hasn't been asked lately. The answer is ``guest.info``.

        :param connected: whether the agent is there. If not, what it said doesn't hold any more.
        :param on_answer: called from another thread when it has answered.
        """
        if not connected:
            guest.asked, guest.info = None, None
            return
        now = time.monotonic()
        if guest.asked is not None and now - guest.asked < POLL_INTERVAL:
            return
        guest.asked = now

        def done(info: GuestInfo | None) -> None:
            guest.info = info
            if info is not None:
                on_answer()

        self._pool.submit(self._ask, domain, guest.domain_name, done)

    def thaw(self, guest: Guest, domain: Domain, on_done: Callable[[], None]) -> None:
        """Thaw a guest's file systems.

        :param on_done: called from another thread afterwards, whether it was possible or not.
        """

        def run() -> None:
            try:
                domain.thaw()
                log.info("file systems thawed: the time limit of their freeze expired", extra={"vmi": str(guest)})
            except (LibvirtError, LauncherBusy) as error:
                log.warning("the file systems can't be thawed: %s", error, extra={"vmi": str(guest)})
            guest.asked = None
            on_done()

        self._pool.submit(run)

    def _ask(self, domain: Domain, name: str, done: Callable[[GuestInfo | None], None]) -> None:
        try:
            done(_query(domain, name))
        except (LibvirtError, LauncherBusy, AnswerError) as error:
            log.info("the guest agent does not answer: %s", error, extra={"domain": name})
            done(None)
        except Exception:
            log.exception("asking the guest agent failed", extra={"domain": name})
            done(None)


def _query(domain: Domain, name: str) -> GuestInfo:
    missing = missing_agent_commands(agent.answer(domain.ask_agent(agent.command("guest-info")), "guest-info"))
    if _is_frozen(domain):
        return GuestInfo(frozen=True)
    try:
        info: dict[str, Any] = domain.guest_info()
    except LibvirtError as error:
        # An agent may have commands switched off.
        log.info("the guest agent has no information: %s", error, extra={"domain": name})
        info = {}
    return GuestInfo(tuple(missing), guest_os_info(info), agent_interfaces(info))


def _is_frozen(domain: Domain) -> bool:
    command = "guest-fsfreeze-status"
    try:
        return agent.is_frozen(agent.answer(domain.ask_agent(agent.command(command)), command))
    except LibvirtError:
        return False  # not every agent can freeze
