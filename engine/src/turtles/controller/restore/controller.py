# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineRestore → claims, VirtualMachine: reads the caches, asks the plan, and writes what it says."""

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from turtles.api.changes import merge_diff
from turtles.api.objects import Object, get, owner_reference
from turtles.api.run_strategies import HALTED
from turtles.controller.caches import BY_CLAIM, state_claims
from turtles.controller.restore.plan import Plan, Situation, failed, plan
from turtles.controller.shared import Shared
from turtles.controller.state_claims import LABEL
from turtles.kube.client import AlreadyExists, ApiError, Conflict, NotFound, Unavailable
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import RESTORE, SNAPSHOT, SNAPSHOT_CONTENT
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import STORAGECLASS, VOLUMESNAPSHOT

log = logging.getLogger(__name__)

#: Index of restores: their target, as ``namespace/name``.
BY_TARGET = "target"
#: Index of restores: claims that they name, as ``namespace/name``.
BY_RESTORED_CLAIM = "claim"


class RestoreController:
    """Reconciles VirtualMachineRestores."""

    def __init__(self, shared: Shared) -> None:
        manager, caches = shared.manager, shared.caches
        self._writer, self._recorder = shared.writer, shared.recorder
        self._vms, self._vmis, self._pvcs = caches.vms, caches.vmis, caches.pvcs
        self._restores, self._snapshots = manager.informer(RESTORE), manager.informer(SNAPSHOT)
        self._contents = manager.informer(SNAPSHOT_CONTENT)
        self._volume_snapshots = manager.informer(VOLUMESNAPSHOT, optional=True)
        self._storage_classes = manager.informer(STORAGECLASS)
        self._restores.add_index(BY_TARGET, _target)
        self._restores.add_index(BY_RESTORED_CLAIM, _claims)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._restores),
            # Instances have the names of their machines
            Trigger(self._vms, self._of_machine),
            Trigger(self._vmis, self._of_machine),
            Trigger(self._pvcs, self._of_claim),
        )
        reads = (self._snapshots, self._contents, self._volume_snapshots, self._storage_classes)
        return Controller("restore", self.reconcile, triggers, reads=reads, workers=2, essential=False)

    def _of_machine(self, old: Object | None, new: Object | None) -> list[Key]:
        return [key_of(entry) for entry in self._restores.by_index(BY_TARGET, "/".join(key_of(new or old or {})))]

    def _of_claim(self, old: Object | None, new: Object | None) -> list[Key]:
        return [
            key_of(entry) for entry in self._restores.by_index(BY_RESTORED_CLAIM, "/".join(key_of(new or old or {})))
        ]

    def reconcile(self, key: Key) -> float | None:
        """Bring one restore closer to its end; returns seconds after which to look again."""
        restore = self._restores.get(*key)
        if restore is None:
            return None
        situation, now = self._situation(restore), datetime.now(UTC)
        decided = plan(restore, situation, now)
        deleted = bool(restore["metadata"].get("deletionTimestamp"))
        if decided.finalizers is not None and not deleted:
            restore = self._set_finalizers(restore, decided.finalizers)
        self._prepare(restore, situation, decided)
        self._write(situation, decided, now)
        for pvc in decided.own:
            self._own(pvc, situation.target)
        for pvc in decided.release:
            with contextlib.suppress(NotFound):
                self._writer.patch(self._pvcs, pvc, {"metadata": {"labels": {LABEL: None}}})
        if decided.lock is False:
            self._unlock(restore)
        restore = self._writer.store_status(self._restores, restore, decided.status)
        if decided.event is not None:
            self._recorder.event(restore, *decided.event)
        if decided.finalizers is not None and deleted:
            with contextlib.suppress(NotFound):
                self._set_finalizers(restore, decided.finalizers)
        return decided.wait

    def _situation(self, restore: Object) -> Situation:
        namespace, spec = restore["metadata"]["namespace"], restore["spec"]
        snapshot = self._snapshots.get(namespace, spec["virtualMachineSnapshotName"])
        content_name = get(snapshot, "status", "virtualMachineSnapshotContentName")
        content = self._contents.get(namespace, content_name) if content_name else None
        backups = (content or {"spec": {}})["spec"].get("volumeBackups") or ()
        names = [backup["volumeSnapshotName"] for backup in backups]
        claims = [entry["persistentVolumeClaim"] for entry in get(restore, "status", "restores") or ()]
        target = spec["target"]["name"]
        return Situation(
            self._vms.get(namespace, target),
            self._vmis.get(namespace, target),
            snapshot,
            content,
            {name: obj for name in names if (obj := self._volume_snapshots.get(namespace, name)) is not None},
            {name: obj for name in claims if (obj := self._pvcs.get(namespace, name)) is not None},
            {name: self._users(namespace, name, target) for name in claims},
            frozenset(
                entry["metadata"]["name"]
                for entry in self._storage_classes.list()
                if entry.get("volumeBindingMode") != "WaitForFirstConsumer"
            ),
            state_claims(self._pvcs, namespace, target),
        )

    def _users(self, namespace: str, claim: str, target: str) -> list[str]:
        """Return which machines and instances have a claim, besides the target."""
        users = (obj for cache in (self._vms, self._vmis) for obj in cache.by_index(BY_CLAIM, f"{namespace}/{claim}"))
        return sorted({obj["metadata"]["name"] for obj in users} - {target})

    def _prepare(self, restore: Object, situation: Situation, decided: Plan) -> None:
        """Lock the target, and stop it."""
        target = situation.target
        if target is None:
            return
        if decided.lock:
            status = {"restoreInProgress": restore["metadata"]["name"]}
            target = self._writer.patch(self._vms, target, {"status": status}, subresource="status")
        if decided.stop:
            field = {"running": False} if target["spec"].get("running") is not None else {"runStrategy": HALTED}
            self._writer.patch(self._vms, target, {"spec": field})

    def _write(self, situation: Situation, decided: Plan, now: datetime) -> None:
        """Delete and create claims, then write the machine. What the server refuses fails the restore."""
        for pvc in decided.delete:
            self._writer.delete(self._pvcs, pvc)
        try:
            for claim in decided.create:
                with contextlib.suppress(AlreadyExists):
                    self._writer.create(self._pvcs, claim)
            if decided.machine is not None:
                self._restore_machine(situation.target, decided.machine)
        except (Conflict, Unavailable):
            raise
        except ApiError as error:
            failed(decided, error.message, now)
            decided.lock = False

    def _restore_machine(self, target: Object | None, wanted: Object) -> None:
        if target is None:
            self._writer.create(self._vms, wanted)
            return
        annotations = merge_diff(target["metadata"].get("annotations") or {}, wanted["metadata"]["annotations"])
        patch = {"metadata": {"annotations": annotations}, "spec": merge_diff(target["spec"], wanted["spec"])}
        self._writer.patch(self._vms, target, patch)
        log.info("machine restored", extra={key: target["metadata"][key] for key in ("namespace", "name")})

    def _unlock(self, restore: Object) -> None:
        target = self._vms.get(restore["metadata"]["namespace"], restore["spec"]["target"]["name"])
        if target is not None and get(target, "status", "restoreInProgress") == restore["metadata"]["name"]:
            status = {"restoreInProgress": None, "memoryDumpRequest": None}
            with contextlib.suppress(NotFound):
                self._writer.patch(self._vms, target, {"status": status}, subresource="status")

    def _own(self, pvc: Object, target: Object | None) -> None:
        """Have a claim go with its machine."""
        if target is None:
            return
        references = [*(pvc["metadata"].get("ownerReferences") or ()), owner_reference(target)]
        with contextlib.suppress(NotFound):
            self._writer.patch(self._pvcs, pvc, {"metadata": {"ownerReferences": references}})

    def _set_finalizers(self, restore: Object, finalizers: Sequence[str]) -> Object:
        return self._writer.patch(self._restores, restore, {"metadata": {"finalizers": list(finalizers)}})


def _target(restore: Object) -> list[str]:
    return [f"{restore['metadata']['namespace']}/{restore['spec']['target']['name']}"]


def _claims(restore: Object) -> list[str]:
    entries = get(restore, "status", "restores") or ()
    return [f"{restore['metadata']['namespace']}/{entry['persistentVolumeClaim']}" for entry in entries]
