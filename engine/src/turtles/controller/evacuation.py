# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrates machines away from nodes that they have to leave (KubeVirt user guide, "Node maintenance").

A machine has to leave its node when the eviction of its Pod was asked for (``status.evacuationNodeName``, written by
virt-api), or when the node has the taint of nodes that are drained. It gets a VirtualMachineInstanceMigration; after
one that failed there is a pause, which doubles with each that follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from turtles.api import migrations
from turtles.api.conditions import is_true
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import RUNNING, phase_of
from turtles.api.times import parse_time, rest_of
from turtles.controller import remedies
from turtles.controller.caches import BY_NODE, Caches
from turtles.kube.client import ApiError, Client, Invalid
from turtles.kube.events import Recorder
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import MIGRATION
from turtles.kube.manager import Controller, Manager, Trigger, each

#: Strategies of machines that are migrated.
MIGRATING = ("LiveMigrate", "LiveMigrateIfPossible")
#: Of migrations that were created here: the node that is left.
ANNOTATION = "kubevirt.io/evacuationMigration"
#: Taint of nodes that machines have to leave.
TAINT = "kubevirt.io/drain"
#: Shortest and longest pause after a migration that failed, seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 20.0, 640.0


class EvacuationController:
    """Reconciles VirtualMachineInstances with the nodes they have to leave."""

    def __init__(self, client: Client, manager: Manager, caches: Caches, recorder: Recorder) -> None:
        self._client, self._recorder = client, recorder
        self._vmis, self._nodes = caches.vmis, caches.nodes
        self._migrations = manager.informer(MIGRATION)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._vmis),
            Trigger(self._nodes, self._on_node),
            Trigger(self._migrations, _instance_of),
        )
        return Controller("evacuation", self.reconcile, triggers)

    def _on_node(self, old: Object | None, new: Object | None) -> list[Key]:
        if is_drained(old) == is_drained(new) or new is None:
            return []
        return [key_of(vmi) for vmi in self._vmis.by_index(BY_NODE, new["metadata"]["name"])]

    def reconcile(self, key: Key) -> float | None:
        """Migrate a machine if it has to leave; returns seconds after which to look again."""
        vmi = self._vmis.get(*key)
        if vmi is None or not has_to_leave(vmi, self._nodes.get(None, str(get(vmi, "status", "nodeName")))):
            return None
        own = [each for each in self._migrations.list(key[0]) if each["spec"].get("vmiName") == key[1]]
        if any(phase_of(each) not in migrations.FINAL for each in own):
            return None
        if (pause := pause_after(own, datetime.now(UTC))) > 0:
            return pause
        try:
            self._migrations.observe(self._client.create(MIGRATION, _migration(vmi)))
        except Invalid as error:
            # It can't be migrated any more, or somebody else was quicker
            self._recorder.event(vmi, "Warning", "FailedEvacuation", error.message)
            return _FIRST_PAUSE
        except ApiError as error:
            message = f"the machine can't be migrated away from its node: {error.message}"
            self._recorder.event(
                vmi, "Warning", "FailedEvacuation", remedies.advised(message, remedies.of_refusal(error))
            )
            raise
        return None


def has_to_leave(vmi: Object, node: Mapping[str, Any] | None) -> bool:
    """Say whether a machine is to be migrated away from the node that it is on."""
    status = vmi.get("status") or {}
    if phase_of(vmi) != RUNNING or is_deleted(vmi) or vmi["spec"].get("evictionStrategy") not in MIGRATING:
        return False
    if not is_true(status.get("conditions"), "LiveMigratable"):
        return False
    asked = status.get("evacuationNodeName")
    return bool(asked and asked == status.get("nodeName")) or is_drained(node)


def is_drained(node: Mapping[str, Any] | None) -> bool:
    """Say whether a node has the taint of nodes that machines have to leave."""
    taints = get(dict(node or {}), "spec", "taints") or ()
    return any(taint.get("key") == TAINT and taint.get("effect") == "NoSchedule" for taint in taints)


def pause_after(own: Sequence[Object], now: datetime) -> float:
    """Return how many seconds to wait before the next attempt.

    :param own: the machine's migrations, which have all ended.
    """
    ended = sorted(own, key=lambda each: str(each["metadata"].get("creationTimestamp")), reverse=True)
    failures = 0
    for migration in ended:
        if phase_of(migration) != migrations.FAILED or ANNOTATION not in (
            migration["metadata"].get("annotations") or {}
        ):
            break
        failures += 1
    if not failures:
        return 0.0
    transitions = get(ended[0], "status", "phaseTransitionTimestamps") or [{}]
    last = parse_time(transitions[-1].get("phaseTransitionTimestamp")) or now
    return max(0.0, rest_of(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1)), last, now))


def _instance_of(old: Object | None, new: Object | None) -> list[Key]:
    migration = new or old or {}
    return [(migration["metadata"]["namespace"], str(migration["spec"].get("vmiName")))]


def _migration(vmi: Object) -> Object:
    metadata = vmi["metadata"]
    return {
        "apiVersion": MIGRATION.api_version,
        "kind": MIGRATION.kind,
        "metadata": {
            "generateName": "kubevirt-evacuation-",
            "namespace": metadata["namespace"],
            "annotations": {ANNOTATION: vmi["status"]["nodeName"]},
        },
        "spec": {"vmiName": metadata["name"]},
    }
