# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives guests what their Secrets with SSH keys and passwords hold, by their agents, whenever that changes.

The Secrets are mounted in the guest's Pod, where the kubelet keeps them up to date; they are read there. The agent is
asked on a thread of its own: it may take its time.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from turtles.domain import credentials
from turtles.domain.credentials import Synchronization
from turtles.handler.domain import Domain
from turtles.handler.errors import LauncherBusy, LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher

log = logging.getLogger(__name__)

#: Seconds after which an agent that refused is asked again.
_RETRY = 60.0
_THREADS = 8


class AccessCredentials:
    """Keeps the credentials of this node's guests up to date."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="credentials")

    def refresh(
        self,
        vmi: Mapping[str, Any],
        guest: Guest,
        launcher: Launcher,
        domain: Domain,
        on_done: Callable[[], None],
    ) -> None:
        """Give a guest whose agent is there its credentials, unless it has them. The result is ``guest.credentials``.

        :param on_done: called from another thread when the agent has answered.
        """
        spec = vmi["spec"]
        if not credentials.by_agent(spec):
            return
        contents = {name: launcher.files.read_files(credentials.secret_dir(name)) for name in credentials.secrets(spec)}
        commands = credentials.agent_commands(spec, contents)
        digest = hashlib.sha256("\n".join(commands).encode()).hexdigest()
        now = time.monotonic()
        if digest == guest.credentials_digest and (guest.credentials_retry is None or now < guest.credentials_retry):
            return
        guest.credentials_digest, guest.credentials_retry = digest, now + _RETRY

        def run() -> None:
            guest.credentials = _tell(domain, commands)
            if guest.credentials.succeeded:
                guest.credentials_retry = None
            on_done()

        self._pool.submit(run)


def _tell(domain: Domain, commands: list[str]) -> Synchronization:
    try:
        for command in commands:
            domain.ask_agent(command)
    except (LibvirtError, LauncherBusy) as error:
        log.info("the guest agent refuses access credentials: %s", error)
        return Synchronization(False, f"the guest agent refuses access credentials: {error}")
    return Synchronization(True)
