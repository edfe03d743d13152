# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node agent tells Prometheus about the node's guests."""

from __future__ import annotations

import itertools
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from turtles import __version__
from turtles.api.objects import Object
from turtles.domain import statistics
from turtles.handler.cluster import Key
from turtles.handler.errors import LauncherNotReady, LibvirtError
from turtles.handler.guest import Guest, Guests
from turtles.metrics import Description, Sample, Source

log = logging.getLogger(__name__)

_INFO = "kubevirt_info"
#: libvirtds asked at once. Each answers in milliseconds, or has the time that one call may take.
_AT_ONCE = 16


def version() -> Source:
    """Return the version's metric."""
    labels = {"kubeversion": f"v{__version__}", "goversion": f"python{platform.python_version()}"}
    return Source((Description(_INFO, "Version information."),), lambda: [Sample(_INFO, labels, 1.0)])


def of_guests(guests: Guests, node: str, get: Callable[[Key], Object | None]) -> Source:
    """Return the metrics of the guests.

    :param get: returns a VMI.
    """

    def one(guest: Guest) -> list[Sample]:
        vmi, numbers = get(guest.key), _statistics(guest)
        return [] if vmi is None or numbers is None else statistics.samples(vmi, node, numbers)

    def samples() -> Iterator[Sample]:
        managed = guests.all()
        if not managed:
            return iter(())
        with ThreadPoolExecutor(min(_AT_ONCE, len(managed)), "metrics") as pool:
            return itertools.chain.from_iterable(list(pool.map(one, managed)))

    return Source(statistics.DESCRIPTIONS, samples)


def of_migrations(
    guests: Guests, node: str, get: Callable[[Key], Object | None], progress: Callable[[Guest], Mapping[str, Any]]
) -> Source:
    """Return the metrics of the guests that are leaving the node.

    :param get: returns a VMI. :param progress: returns what libvirt says of a guest's migration; empty without one.
    """

    def samples() -> Iterator[Sample]:
        for guest in guests.all():
            vmi, job = get(guest.key), progress(guest)
            if vmi is not None and job:
                yield from statistics.migration_samples(vmi, node, job)

    return Source(statistics.MIGRATION_DESCRIPTIONS, samples)


def _statistics(guest: Guest) -> dict[str, Any] | None:
    launcher = guest.launcher
    try:
        return None if launcher is None else launcher.statistics(guest.domain_name)
    except (LauncherNotReady, LibvirtError, OSError) as error:
        log.debug("no statistics: %s", error, extra={"vmi": str(guest)})
        return None
