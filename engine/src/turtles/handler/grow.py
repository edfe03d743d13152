# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes processors and memory of a running guest."""

import logging

from turtles.api.objects import Object
from turtles.domain import growth
from turtles.domain.device_requests import memory_request
from turtles.domain.report import Observation
from turtles.domain.xml import AnswerError
from turtles.handler.domain import Domain
from turtles.handler.errors import LibvirtError
from turtles.handler.guest import Guest

log = logging.getLogger(__name__)


def grow(vmi: Object, guest: Guest, domain: Domain, seen: Observation) -> bool:
    """Change what the VMI asks for and the guest hasn't; return whether there is something new to see.

    What libvirt refuses is asked for again when something else is wanted.
    """
    if seen.live is None or seen.live.memory == 0:
        return False
    changed = False
    wanted = {change.condition: change for change in growth.changes(vmi, seen.live)}
    for condition in guest.refused.keys() - wanted.keys():
        del guest.refused[condition]
        changed = True
    for condition, change in wanted.items():
        if change.begun or guest.refused.get(condition, (None, ""))[0] == change.amount:
            continue
        changed = True
        guest.refused.pop(condition, None)
        try:
            if condition == growth.VCPU_CHANGE:
                domain.set_vcpus(change.amount)
            else:
                domain.request_memory(memory_request(domain.xml(), change.amount))
        except (LibvirtError, AnswerError) as error:
            guest.refused[condition] = (change.amount, str(error))
            log.warning("the running guest can't be changed: %s", error, extra={"vmi": str(guest)})
        else:
            log.info(
                "the running guest is changed",
                extra={"vmi": str(guest), "uid": guest.uid, "what": condition, "amount": change.amount},
            )
    return changed
