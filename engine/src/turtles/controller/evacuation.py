# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrates machines away from nodes that they have to leave (KubeVirt user guide, "Node maintenance").

A machine has to leave its node when the eviction of its Pod was asked for (``status.evacuationNodeName``, written by
virt-api), or when the node has the taint of nodes that are drained. It gets a VirtualMachineInstanceMigration; after
one that failed there is a pause, which doubles with each that follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from turtles.api import migrations
from turtles.api.conditions import is_true
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import RUNNING, phase_of
from turtles.controller import remedies
from turtles.controller.backoff import EVACUATION, pause_after
from turtles.controller.caches import BY_NODE
from turtles.controller.shared import Shared
from turtles.kube.client import ApiError, Invalid
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import MIGRATION
from turtles.kube.manager import Controller, Trigger, each

#: Strategies of machines that are migrated.
MIGRATING = ("LiveMigrate", "LiveMigrateIfPossible")
#: Seconds after which an attempt that was refused is repeated.
_AGAIN = 20.0


class EvacuationController:
    """Reconciles VirtualMachineInstances with the nodes they have to leave."""

    def __init__(self, shared: Shared) -> None:
        self._configuration = shared.configuration
        self._writer, self._recorder = shared.writer, shared.recorder
        self._vmis, self._nodes = shared.caches.vmis, shared.caches.nodes
        self._migrations = shared.manager.informer(MIGRATION)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._vmis),
            Trigger(self._nodes, self._on_node),
            Trigger(self._migrations, _instance_of),
        )
        return Controller("evacuation", self.reconcile, triggers)

    def _on_node(self, old: Object | None, new: Object | None) -> list[Key]:
        taint = self._configuration().migrations.drain_taint
        if is_drained(old, taint) == is_drained(new, taint) or new is None:
            return []
        return [key_of(vmi) for vmi in self._vmis.by_index(BY_NODE, new["metadata"]["name"])]

    def reconcile(self, key: Key) -> float | None:
        """Migrate a machine if it has to leave; returns seconds after which to look again."""
        vmi = self._vmis.get(*key)
        if vmi is None:
            return None
        node = self._nodes.get(None, str(get(vmi, "status", "nodeName")))
        if not has_to_leave(vmi, node, self._configuration().migrations.drain_taint):
            return None
        own = [each for each in self._migrations.list(key[0]) if each["spec"].get("vmiName") == key[1]]
        if any(phase_of(each) not in migrations.FINAL for each in own):
            return None
        if (pause := pause_after(own, datetime.now(UTC))) > 0:
            return pause
        try:
            self._writer.create(self._migrations, _migration(vmi))
        except Invalid as error:
            # It can't be migrated any more, or somebody else was quicker
            self._recorder.event(vmi, "Warning", "FailedEvacuation", error.message)
            return _AGAIN
        except ApiError as error:
            message = f"the machine can't be migrated away from its node: {error.message}"
            self._recorder.event(
                vmi, "Warning", "FailedEvacuation", remedies.advised(message, remedies.of_refusal(error))
            )
            raise
        return None


def has_to_leave(vmi: Object, node: Mapping[str, Any] | None, taint: str) -> bool:
    """Say whether a machine is to be migrated away from the node that it is on.

    :param taint: key of the taint of nodes that machines have to leave.
    """
    status = vmi.get("status") or {}
    if phase_of(vmi) != RUNNING or is_deleted(vmi) or vmi["spec"].get("evictionStrategy") not in MIGRATING:
        return False
    if not is_true(status.get("conditions"), "LiveMigratable"):
        return False
    asked = status.get("evacuationNodeName")
    return bool(asked and asked == status.get("nodeName")) or is_drained(node, taint)


def is_drained(node: Mapping[str, Any] | None, taint: str) -> bool:
    """Say whether a node has the taint of nodes that machines have to leave."""
    taints = get(dict(node or {}), "spec", "taints") or ()
    return any(each.get("key") == taint and each.get("effect") == "NoSchedule" for each in taints)


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
            "annotations": {EVACUATION: vmi["status"]["nodeName"]},
        },
        "spec": {"vmiName": metadata["name"], "priority": migrations.SYSTEM_CRITICAL},
    }
