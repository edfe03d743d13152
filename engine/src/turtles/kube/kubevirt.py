# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt's kinds as the client addresses them."""

from turtles.api import kinds
from turtles.kube.resources import Resource


def resource(kind: kinds.Kind) -> Resource:
    """Return the resource of a kind's storage version."""
    return Resource(kind.group, kind.version, kind.kind, kind.plural, kind.namespaced)


VM = resource(kinds.VM)
VMI = resource(kinds.VMI)
KUBEVIRT = resource(kinds.KUBEVIRT)
