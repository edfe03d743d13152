# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachineInstance needs, phase by phase. Pure.

Phases and conditions are KubeVirt's (KubeVirt API, VirtualMachineInstanceStatus): Pending without a Pod, Scheduling
with one (``bring_up.py``), Scheduled when its containers are ready. From then on the node agent owns the VMI; what is
known of the Pod is added (``watch_over.py``). What has ended is cleared away (``finish.py``).
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from turtles.api import labels
from turtles.api.conditions import conditions_in, get_condition, set_condition
from turtles.api.import_settings import DEFAULT as NO_SETTINGS
from turtles.api.import_settings import ImportSettings
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import (
    HANDED_OVER,
    is_final,
    phase_of,
)
from turtles.api.times import rfc3339
from turtles.controller.claims import note_overheads, refreshed
from turtles.controller.finalizers import with_finalizer
from turtles.controller.pod import end, sriov
from turtles.controller.pod.roles import by_role
from turtles.controller.vmi import comparison, hotplug, vsock
from turtles.controller.vmi import status as conditions_of
from turtles.controller.vmi.bring_up import bring_up
from turtles.controller.vmi.decided import Plan
from turtles.controller.vmi.finish import finish
from turtles.controller.vmi.watch_over import watch_over


def plan(
    vmi: Object,
    pods: Sequence[Object],
    pvcs: Mapping[str, Object | None],
    now: datetime,
    *,
    noted: bool = False,
    obstacles: Sequence[str] = (),
    addresses: Collection[int] = (),
    attachments: Sequence[Object] = (),
    image: str = "",
    data_volumes: Mapping[str, Object] | None = None,
    settings: ImportSettings = NO_SETTINGS,
) -> Plan:
    """Decide what a VMI needs.

    :param vmi: as stored; it is not changed.
    :param pods: the Pods that the VMI controls.
    :param pvcs: the claims its volumes name; None for one that does not exist.
    :param noted: its VM has taken note of its end.
    :param obstacles: why there can't be a Pod for it.
    :param addresses: VSOCK addresses of other machines.
    :param attachments: the Pods that hold claims for its launcher.
    :param image: of the launchers that are created now.
    :param data_volumes: those that fill its claims, by name.
    :param settings: of disks on claims.
    """
    wanted: Object = {**vmi, "metadata": dict(vmi["metadata"]), "status": copy.deepcopy(vmi.get("status") or {})}
    draft = Plan(wanted)
    pod = by_role(vmi, pods).launcher
    if is_final(vmi):
        finish(draft, pods, now, noted=noted, attached=bool(attachments))
    else:
        if not is_deleted(vmi) and (
            finalizers := with_finalizer(vmi["metadata"], labels.VMI_FINALIZER, labels.VMI_FINALIZER_OLD)
        ):
            wanted["metadata"]["finalizers"] = finalizers
        if phase_of(vmi) in HANDED_OVER:
            watch_over(draft, pod, now)
            if pod is not None:
                comparison.note_version(wanted, pod, image)
                comparison.note_size(wanted, pod)
            if volumes := wanted["status"].get("volumeStatus"):
                wanted["status"]["volumeStatus"] = refreshed(volumes, vmi["spec"], pvcs)
        else:
            bring_up(draft, pod, pvcs, now, obstacles, data_volumes or {})
            if draft.create_pod and vsock.is_without_address(wanted):
                wanted["status"]["VSOCKCID"] = vsock.allocate(wanted["metadata"]["uid"], addresses)
    if is_final(wanted) and not is_final(vmi):
        draft.delete_pods = [each for each in pods if not is_deleted(each)]
    _follow_volumes(draft, pod, attachments, pvcs, data_volumes or {})
    note_overheads(wanted["status"].get("volumeStatus") or (), pvcs, settings)
    if pod is not None and not is_final(wanted):
        draft.network_info = sriov.info(wanted, pod)
    conditions = conditions_in(wanted["status"])
    # The VMI is stored when its Pod has been created: its condition need not lag behind.
    exists = pod is not None or draft.create_pod
    before = get_condition(conditions, "Ready")
    # Whoever ended it has said that it isn't ready; for another reason of the same nobody needs a write.
    settled = is_final(vmi) and before is not None and before.get("status") == "False"
    opening = draft.gate == conditions_of.GATE_OPEN
    if not settled and not (pod is not None and before and conditions_of.is_gate_unread(wanted, pod, opening=opening)):
        going = pod is not None and pod in draft.delete_pods
        ready = conditions_of.ready(wanted, pod or {"metadata": {}} if exists else None, going=going)
        set_condition(conditions, "Ready", *ready, rfc3339(now))
    return draft


def _follow_volumes(
    draft: Plan,
    launcher: Object | None,
    attachments: Sequence[Object],
    pvcs: Mapping[str, Object | None],
    data_volumes: Mapping[str, Object],
) -> None:
    """Bring claims to a launcher that has a node, and away from it; when it ends, all of them go."""
    if is_final(draft.vmi) or launcher is None:
        draft.detach = [pod for pod in attachments if not is_deleted(pod)]
        return
    if not launcher["spec"].get("nodeName") or end.has_ended(launcher):
        return
    changes = hotplug.follow(draft.vmi, launcher, attachments, pvcs, data_volumes)
    if changes is not None:
        draft.vmi["status"]["volumeStatus"] = changes.entries
        draft.attach, draft.detach = changes.create, changes.delete
        draft.events += changes.events
