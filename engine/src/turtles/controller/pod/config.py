# SPDX-License-Identifier: GPL-3.0-or-later
"""What the installation and the nodes say about launcher Pods."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from turtles.api import configuration
from turtles.api.configuration import ClusterConfiguration
from turtles.api.guests import QEMU_UID
from turtles.api.objects import Object

#: The container runtime's filter of system calls, and none.
RUNTIME_DEFAULT, UNCONFINED = {"type": "RuntimeDefault"}, {"type": "Unconfined"}
#: Port of the metrics of importers and export servers, over TLS.
METRICS_PORT = 8443


@dataclass(frozen=True)
class LauncherConfig:
    """What the installation and the nodes say about launcher Pods.

    :param image: of the container.
    :param kvm: some schedulable node offers working KVM; without it the guest is emulated.
    :param vhost_net: some schedulable node offers vhost-net.
    :param cluster: what the KubeVirt object says.
    :param image_volumes: images are mounted into Pods (Kubernetes KEP-4639). None leaves that to the versions of server
        and nodes and the feature gate, see :mod:`turtles.controller.server`; a Pod is made with True or False.
    :param network_resources: resources of the SR-IOV networks of the VMI that a Pod is made for, by their names.
    :param state_claim: the claim with the state of the VMI that a Pod is made for, if it isn't the one of its name.
    :param limited: resources (cpu, memory) for which a ResourceQuota of the namespace demands limits.
    """

    image: str
    kvm: bool = False
    vhost_net: bool = False
    cluster: ClusterConfiguration = configuration.DEFAULT
    image_volumes: bool | None = None
    network_resources: Mapping[str, str] = field(default_factory=dict)
    limited: frozenset[str] = frozenset()
    state_claim: str | None = None


def pull_policy(config: LauncherConfig) -> str:
    """Return when the engine\'s own images are pulled."""
    return config.cluster.image_pull_policy or "IfNotPresent"


def pod_security(profile: Mapping[str, str] = RUNTIME_DEFAULT) -> Object:
    """Return the security context of a Pod: what all of its containers have.

    :param profile: the filter of its system calls (seccompProfile).
    """
    return {
        "runAsUser": QEMU_UID,
        "runAsGroup": QEMU_UID,
        "fsGroup": QEMU_UID,
        "runAsNonRoot": True,
        "seccompProfile": dict(profile),
    }


def security(*capabilities: str, **more: Any) -> Object:
    """Return the security context of a container of the Pod."""
    return {
        "runAsUser": QEMU_UID,
        "runAsGroup": QEMU_UID,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], **({"add": list(capabilities)} if capabilities else {})},
        **more,
    }
