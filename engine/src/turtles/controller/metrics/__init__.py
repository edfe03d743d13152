# SPDX-License-Identifier: GPL-3.0-or-later
"""What virt-controller tells Prometheus about machines and their instances. Names and labels are KubeVirt's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.controller.caches import BY_OWNER, Caches
from turtles.controller.metrics import instances, machines
from turtles.controller.metrics.transitions import Transitions
from turtles.metrics import Description, Sample, Source

_LEADING = "kubevirt_virt_controller_leading_status"


def sources(
    caches: Caches, configuration: Callable[[], ClusterConfiguration], gate: threading.Event
) -> tuple[Source, ...]:
    """Return the component's own metrics.

    :param configuration: gives the configuration in force.
    :param gate: set while the component leads.
    """
    transitions = Transitions()
    caches.vmis.add_handler(transitions.observe)

    def of_machines() -> Iterator[Sample]:
        return machines.samples(caches.vms.list(), caches.pvcs.get)

    def pod_of(vmi: Mapping[str, Any]) -> Mapping[str, Any] | None:
        node = (vmi.get("status") or {}).get("nodeName")
        pods = caches.pods.by_index(BY_OWNER, vmi["metadata"]["uid"])
        return next((pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == node), None)

    def of_instances() -> Iterator[Sample]:
        return instances.samples(caches.vmis.list(), pod_of, configuration().eviction_strategy)

    leading = Description(_LEADING, "Whether this virt-controller leads.")
    return (
        Source((leading,), lambda: [Sample(_LEADING, {}, float(gate.is_set()))]),
        Source(machines.DESCRIPTIONS, of_machines),
        Source(instances.DESCRIPTIONS, of_instances),
        transitions.source,
    )
