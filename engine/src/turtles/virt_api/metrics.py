# SPDX-License-Identifier: GPL-3.0-or-later
"""What virt-api tells Prometheus about what it has admitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from turtles.api.kinds.vm import VM
from turtles.metrics import COUNTER, Description, Sample, Source

_CREATED = "kubevirt_vm_created_by_pod_total"


def of_creations(created: Mapping[tuple[str, str], int], pod: str) -> Source:
    """Return the metric of VirtualMachines that were created.

    :param created: numbers by kind and namespace.
    :param pod: name of this virt-api's Pod; empty where it is a service.
    """

    def samples() -> Iterator[Sample]:
        for (kind, namespace), count in sorted(dict(created).items()):
            if kind == VM.kind:
                yield Sample(_CREATED, {"namespace": namespace, "virt_api_pod": pod}, float(count))

    doc = "Number of VMs created since start, by namespace and virt-api Pod."
    return Source((Description(_CREATED, doc, COUNTER),), samples)
