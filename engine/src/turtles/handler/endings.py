# SPDX-License-Identifier: GPL-3.0-or-later
"""How the guest of a VMI ended, as far as libvirt has said so."""

from turtles.api.objects import Object
from turtles.domain import end, lifecycle
from turtles.domain.end import End
from turtles.handler.guest import Guest


def stopped(vmi: Object, guest: Guest, state: int, reason: int) -> End:
    """Return how a guest ended whose domain has ended."""
    return end.stopped(
        vmi["spec"],
        state,
        reason,
        shutdown_requested=guest.state.shutdown_at is not None,
        out_of_memory=lifecycle.crashed(state, reason) and guest.reached_memory_limit(),
        frozen=guest.state.frozen,
    )


def lost(vmi: Object, guest: Guest, why: str) -> End:
    """Return how a guest ended whose domain can't be asked: as its last event said, else as failed."""
    if guest.state.stopped is not None:
        return stopped(vmi, guest, lifecycle.State.SHUTOFF, guest.state.stopped)
    return end.lost(why)
