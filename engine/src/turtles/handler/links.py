# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets the links of a running guest's network interfaces (KubeVirt user guide, "Interfaces and networks", "State")."""

import logging

from turtles.domain.device_requests import link_request
from turtles.domain.report import Observation
from turtles.domain.xml import AnswerError
from turtles.handler.domain import Domain
from turtles.handler.errors import LibvirtError
from turtles.handler.guest import Guest

log = logging.getLogger(__name__)


def set_links(guest: Guest, domain: Domain, seen: Observation) -> bool:
    """Give interfaces the links that the VMI asks for; return whether there is something new to see.

    :raises LibvirtError: if libvirt refuses.
    """
    if seen.live is None:
        return False
    changed = False
    for plan in seen.plans:
        if seen.live.links.get(plan.guest_mac, plan.link_up) == plan.link_up:
            continue
        try:
            domain.set_link(link_request(domain.xml(), plan.guest_mac, up=plan.link_up))
        except (LibvirtError, AnswerError) as error:
            words = f"the link of interface {plan.name!r} can't be set {'up' if plan.link_up else 'down'}: {error}"
            raise LibvirtError(words) from error
        log.info("link changed", extra={"vmi": str(guest), "interface": plan.name, "up": plan.link_up})
        changed = True
    return changed
