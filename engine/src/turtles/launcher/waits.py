# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher waits for before it can start its VM, while the event loop runs."""

import logging
from collections.abc import Callable
from typing import Any

from turtles.launcher import container_disk, loop
from turtles.launcher.delivery import Delivery
from turtles.launcher.errors import LaunchError

log = logging.getLogger(__name__)

#: Seconds until the log first says that the VMI hasn't been delivered, and the longest pause between two such lines.
_REMIND_SECONDS, _LONGEST_REMIND_SECONDS = 10, 300
#: How often to look for the VMI where inotify isn't available.
_POLL_SECONDS = 0.2


def wait_for_vmi(delivery: Delivery, is_ending: Callable[[], bool]) -> dict[str, Any] | None:
    """Wait until the node agent has delivered the VMI; return None if the launcher was asked to end in the meantime.

    There is no time limit: while the node has no agent, the next launcher would wait in vain as well.

    :raises LaunchError: something else was delivered.
    """
    vmi: dict[str, Any] | None = None
    failed: LaunchError | None = None

    def look() -> None:
        nonlocal vmi, failed
        try:
            vmi = delivery.take()
        except LaunchError as error:
            failed = error

    def remind(waited: float, pause: float) -> None:
        if not vmi:
            log.warning(
                "no VirtualMachineInstance from the node agent after %d s, still waiting: "
                "is virt-handler running on this node?",
                waited,
            )
            again = min(2 * pause, _LONGEST_REMIND_SECONDS)
            loop.after(again, lambda: remind(waited + again, again))

    descriptor = delivery.fileno()
    stop = loop.on_readable(descriptor, look) if descriptor is not None else loop.every(_POLL_SECONDS, look)
    loop.after(_REMIND_SECONDS, lambda: remind(_REMIND_SECONDS, _REMIND_SECONDS))
    look()
    while not vmi and not failed and not is_ending():
        loop.step()
    stop()
    delivery.close()
    if failed:
        raise failed
    return vmi


def wait_for_container_disks(request: container_disk.Request, is_ending: Callable[[], bool]) -> bool:
    """Wait until the node agent has mounted them; return False if the launcher was asked to end in the meantime.

    :raises LaunchError: that isn't possible.
    """
    mounted = False
    failed: LaunchError | None = None

    def called() -> None:
        nonlocal mounted, failed
        try:
            mounted = request.handle()
        except LaunchError as error:
            failed = error
        if mounted or failed:
            stop()

    stop = loop.on_readable(request.fileno(), called)
    while not mounted and not is_ending():
        loop.step()
        if failed:
            raise failed
    return mounted
