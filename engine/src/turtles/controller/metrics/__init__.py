# SPDX-License-Identifier: GPL-3.0-or-later
"""What virt-controller tells Prometheus about machines and their instances. Names and labels are KubeVirt's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.controller.caches import BY_OWNER, Caches
from turtles.controller.metrics import instances, machines, migrations
from turtles.controller.metrics.transitions import Transitions
from turtles.kube.informer import Informer
from turtles.metrics import Description, Sample, Source

_LEADING = "kubevirt_virt_controller_leading_status"


def sources(
    caches: Caches, moves: Informer, configuration: Callable[[], ClusterConfiguration], gate: threading.Event
) -> tuple[Source, ...]:
    """Return the component's own metrics.

    :param moves: the cache of VirtualMachineInstanceMigrations.
    :param configuration: gives the configuration in force.
    :param gate: set while the component leads.
    """
    transitions = Transitions()
    caches.vmis.add_handler(transitions.observe)
    moves.add_handler(transitions.observe_migration)

    def of_machines() -> Iterator[Sample]:
        return machines.samples(caches.vms.list(), caches.pvcs.get)

    def pod_of(vmi: Mapping[str, Any]) -> Mapping[str, Any] | None:
        node = (vmi.get("status") or {}).get("nodeName")
        pods = caches.pods.by_index(BY_OWNER, vmi["metadata"]["uid"])
        return next((pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == node), None)

    def of_instances() -> Iterator[Sample]:
        return instances.samples(caches.vmis.list(), pod_of, configuration().eviction_strategy)

    def of_migrations() -> Iterator[Sample]:
        return migrations.samples(moves.list(), caches.vmis.list())

    leading = Description(_LEADING, "Whether this virt-controller is the leader.")
    return (
        Source((leading,), lambda: [Sample(_LEADING, {}, float(gate.is_set()))]),
        Source(machines.DESCRIPTIONS, of_machines),
        Source(instances.DESCRIPTIONS, of_instances),
        Source(migrations.DESCRIPTIONS, of_migrations),
        transitions.source,
    )
