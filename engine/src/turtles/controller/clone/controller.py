# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineClone → snapshot, restore: reads the caches, asks the plan, and writes what it says."""

from datetime import UTC, datetime

from turtles.api.objects import Object, get
from turtles.controller.clone.plan import Plan, Situation, failed, plan, restore_name, snapshot_name
from turtles.controller.shared import Shared
from turtles.kube.client import AlreadyExists, ApiError, Conflict, Unavailable
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import CLONE, RESTORE, SNAPSHOT, SNAPSHOT_CONTENT
from turtles.kube.manager import Controller, Trigger, each


class CloneController:
    """Reconciles VirtualMachineClones."""

    def __init__(self, shared: Shared) -> None:
        manager = shared.manager
        self._writer, self._recorder = shared.writer, shared.recorder
        self._vms, self._pvcs = shared.caches.vms, shared.caches.pvcs
        self._clones, self._snapshots = manager.informer(CLONE), manager.informer(SNAPSHOT)
        self._contents, self._restores = manager.informer(SNAPSHOT_CONTENT), manager.informer(RESTORE)
        self._made = {SNAPSHOT.kind: self._snapshots, RESTORE.kind: self._restores}

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._clones),
            Trigger(self._snapshots, self._in_namespace),
            Trigger(self._restores, self._in_namespace),
            Trigger(self._pvcs, self._in_namespace),
        )
        return Controller("clone", self.reconcile, triggers, reads=(self._vms, self._contents), essential=False)

    def _in_namespace(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return the clones of a namespace: there are few at a time."""
        return [key_of(entry) for entry in self._clones.list((new or old or {})["metadata"]["namespace"])]

    def reconcile(self, key: Key) -> float | None:
        """Bring one clone closer to its end."""
        clone = self._clones.get(*key)
        if clone is None or not clone["spec"].get("target"):
            return None
        now = datetime.now(UTC)
        decided = plan(clone, self._situation(clone), now)
        if decided.create is not None:
            self._create(decided, now)
        for obj in decided.delete:
            self._writer.delete(self._made[obj["kind"]], obj)
        clone = self._writer.store_status(self._clones, clone, decided.status)
        if decided.event is not None:
            self._recorder.event(clone, *decided.event)
        return None

    def _situation(self, clone: Object) -> Situation:
        namespace, spec = clone["metadata"]["namespace"], clone["spec"]
        snapshot = self._snapshots.get(namespace, snapshot_name(clone))
        content = get(snapshot, "status", "virtualMachineSnapshotContentName")
        restore = self._restores.get(namespace, restore_name(clone))
        names = [entry["persistentVolumeClaim"] for entry in get(restore, "status", "restores") or ()]
        return Situation(
            self._vms.get(namespace, spec["source"]["name"]),
            self._vms.get(namespace, spec["target"]["name"]),
            snapshot,
            self._contents.get(namespace, content) if content else None,
            restore,
            [pvc for name in names if (pvc := self._pvcs.get(namespace, name)) is not None],
        )

    def _create(self, decided: Plan, now: datetime) -> None:
        """Create a snapshot or a restore. What the server refuses fails the clone."""
        obj = decided.create or {}
        try:
            self._writer.create(self._made[obj["kind"]], obj)
        except AlreadyExists:
            return
        except (Conflict, Unavailable):
            raise
        except ApiError as error:
            failed(decided, error.message, now)
