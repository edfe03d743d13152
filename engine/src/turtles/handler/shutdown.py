# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the guests of deleted VMIs to shut down, and ends those whose grace period is over."""

import logging
import time

from turtles.api.guests import grace_period
from turtles.api.objects import Object
from turtles.domain import decision, definition, end, lifecycle, report
from turtles.domain.decision import ShutdownStep
from turtles.handler.domain import Domain
from turtles.handler.errors import GuestEnded, LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.reporter import Reporter

log = logging.getLogger(__name__)


def shut_down(
    vmi: Object, guest: Guest, domain: Domain, state: int, reason: int, now: float, reporter: Reporter
) -> float:
    """Ask the guest to shut down, repeatedly; end it when its grace period is over. Return when to look again.

    :param now: a moment of the clock that deadlines which outlive this process are measured by.
    :raises GuestEnded: if it can't be ended.
    """
    spec, moment = vmi["spec"], time.monotonic()
    if guest.state.shutdown_at is None:
        guest.state.shutdown_at = now
        guest.save()
        reporter.event(vmi, report.SHUTTING_DOWN)
    frozen = lifecycle.is_frozen(state, reason)
    step, again = decision.shutdown_step(
        guest.state.shutdown_at + grace_period(spec) - now,
        acpi=definition.acpi_enabled(spec),
        since_pressed=None if guest.pressed is None else moment - guest.pressed,
        frozen=frozen,
    )
    if step is ShutdownStep.GIVE_UP:
        raise GuestEnded(end.not_destroyed(decision.DESTROY_LIMIT))
    if step is ShutdownStep.DESTROY:
        if frozen and not guest.state.frozen:
            guest.state.frozen = True
            guest.save()
        domain.destroy()
    if step is ShutdownStep.PRESS_POWER_BUTTON:
        guest.pressed = moment
        try:
            if lifecycle.is_asleep(state):
                domain.wake_up()
            domain.shut_down()
        except LibvirtError as error:
            # It may have ended meanwhile, or be in a state in which it has no power button; its time runs anyway.
            log.info("the guest can't be asked to shut down: %s", error, extra={"vmi": str(guest)})
    return again
