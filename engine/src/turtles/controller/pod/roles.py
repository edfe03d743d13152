# SPDX-License-Identifier: GPL-3.0-or-later
"""What each Pod of a VirtualMachineInstance is for. Pure.

A guest runs in one launcher Pod. While it migrates there is a second one, its target (KubeVirt, "virt-launcher pod",
"Live migration"). Pods that hold claims for a running guest belong to its launcher, not to the VMI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object
from turtles.controller.pod.launcher import pod_name


@dataclass(frozen=True)
class Pods:
    """A VMI's Pods by role.

    :param launcher: where the guest runs, or is to start.
    :param targets: launchers of migrations, that of the present one and those left from earlier ones.
    """

    launcher: Object | None
    targets: tuple[Object, ...] = ()


def by_role(vmi: Mapping[str, Any], pods: Sequence[Object]) -> Pods:
    """Tell the Pods of a VMI apart.

    The launcher is the Pod that status.activePods names on status.nodeName: after a migration that is what was the
    target. Until the guest was handed to a node it is the Pod that was made for its start.

    :param pods: all that the VMI controls.
    """
    status = vmi.get("status") or {}
    node = status.get("nodeName")
    active = {uid for uid, where in (status.get("activePods") or {}).items() if where == node}
    running = [pod for pod in pods if pod["metadata"].get("uid") in active]
    # Which of them is a migration's target shows in its label; the one that has the guest isn't one any more.
    starting = [pod for pod in pods if not _label(pod, labels.MIGRATION_JOB_UID)]
    expected = pod_name(dict(vmi))
    starting.sort(key=lambda pod: pod["metadata"]["name"] != expected)
    launcher = next(iter(running or starting), None)
    targets = tuple(pod for pod in pods if _label(pod, labels.MIGRATION_JOB_UID) and pod is not launcher)
    return Pods(launcher, targets)


def _label(pod: Mapping[str, Any], name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name) or "")
