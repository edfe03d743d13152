# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineRestore → claims, VirtualMachine: reads the caches, asks the plan, and writes what it says."""

import contextlib
import logging
from datetime import UTC, datetime

from turtles.api.objects import Object, get, owner_reference
from turtles.api.run_strategies import HALTED
from turtles.controller.caches import BY_CLAIM, Caches
from turtles.controller.changes import merge_diff
from turtles.controller.restore.plan import Plan, Situation, failed, plan
from turtles.kube.client import AlreadyExists, ApiError, Client, Conflict, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import RESTORE, SNAPSHOT, SNAPSHOT_CONTENT, VM
from turtles.kube.manager import Controller, Manager, Trigger, each
from turtles.kube.resources import PVC, STORAGECLASS, VOLUMESNAPSHOT

log = logging.getLogger(__name__)

#: Index of restores: their target, as ``namespace/name``.
BY_TARGET = "target"
#: Index of restores: claims that they name, as ``namespace/name``.
BY_RESTORED_CLAIM = "claim"


class RestoreController:
    """Reconciles VirtualMachineRestores."""

    def __init__(self, client: Client, manager: Manager, caches: Caches, recorder: Recorder) -> None:
        self._client, self._recorder = client, recorder
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
        found, now = self._situation(restore), datetime.now(UTC)
        decided = plan(restore, found, now)
        deleted = bool(restore["metadata"].get("deletionTimestamp"))
        if decided.finalizers is not None and not deleted:
            restore = self._patch(restore, {"metadata": {"finalizers": list(decided.finalizers)}})
        self._prepare(restore, found, decided)
        self._write(restore, found, decided, now)
        for pvc in decided.own:
            self._own(pvc, found.target)
        if decided.lock is False:
            self._unlock(restore)
        restore = self._store(restore, decided.status)
        if decided.event is not None:
            self._recorder.event(restore, *decided.event)
        if decided.finalizers is not None and deleted:
            with contextlib.suppress(NotFound):
                self._patch(restore, {"metadata": {"finalizers": list(decided.finalizers)}})
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
        )

    def _users(self, namespace: str, claim: str, target: str) -> list[str]:
        """Return which machines and instances have a claim, besides the target."""
        found = (obj for cache in (self._vms, self._vmis) for obj in cache.by_index(BY_CLAIM, f"{namespace}/{claim}"))
        return sorted({obj["metadata"]["name"] for obj in found} - {target})

    def _prepare(self, restore: Object, found: Situation, decided: Plan) -> None:
        """Lock the target, and stop it."""
        target = found.target
        if target is None:
            return
        if decided.lock:
            target = self._patch_machine(
                target, {"status": {"restoreInProgress": restore["metadata"]["name"]}}, subresource="status"
            )
        if decided.stop:
            field = {"running": False} if target["spec"].get("running") is not None else {"runStrategy": HALTED}
            self._patch_machine(target, {"spec": field})

    def _write(self, restore: Object, found: Situation, decided: Plan, now: datetime) -> None:
        """Delete and create claims, then write the machine. What the server refuses fails the restore."""
        for pvc in decided.delete:
            metadata = pvc["metadata"]
            with contextlib.suppress(NotFound):
                self._client.delete(PVC, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        try:
            for claim in decided.create:
                with contextlib.suppress(AlreadyExists):
                    self._pvcs.observe(self._client.create(PVC, claim))
            if decided.machine is not None:
                self._restore_machine(found.target, decided.machine)
        except (Conflict, Unavailable):
            raise
        except ApiError as error:
            failed(decided, error.message, now)
            decided.lock = False

    def _restore_machine(self, target: Object | None, wanted: Object) -> None:
        if target is None:
            self._vms.observe(self._client.create(VM, wanted))
            return
        annotations = merge_diff(target["metadata"].get("annotations") or {}, wanted["metadata"]["annotations"])
        patch = {"metadata": {"annotations": annotations}, "spec": merge_diff(target["spec"], wanted["spec"])}
        self._patch_machine(target, patch)
        log.info("machine restored", extra={key: target["metadata"][key] for key in ("namespace", "name")})

    def _unlock(self, restore: Object) -> None:
        target = self._vms.get(restore["metadata"]["namespace"], restore["spec"]["target"]["name"])
        if target is not None and get(target, "status", "restoreInProgress") == restore["metadata"]["name"]:
            status = {"restoreInProgress": None, "memoryDumpRequest": None}
            with contextlib.suppress(NotFound):
                self._patch_machine(target, {"status": status}, subresource="status")

    def _patch_machine(self, vm: Object, patch: Object, subresource: str | None = None) -> Object:
        metadata = vm["metadata"]
        identity = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), **identity}}
        stored = self._client.patch(VM, metadata["namespace"], metadata["name"], guarded, subresource=subresource)
        self._vms.observe(stored)
        return stored

    def _own(self, pvc: Object, target: Object | None) -> None:
        """Have a claim go with its machine."""
        if target is None:
            return
        metadata = pvc["metadata"]
        references = [*(metadata.get("ownerReferences") or ()), owner_reference(target)]
        identity = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        body = {"metadata": {**identity, "ownerReferences": references}}
        with contextlib.suppress(NotFound):
            self._pvcs.observe(self._client.patch(PVC, metadata["namespace"], metadata["name"], body))

    def _store(self, restore: Object, status: Object) -> Object:
        patch = merge_diff(restore.get("status") or {}, status)
        return self._patch(restore, {"status": patch}, subresource="status") if patch else restore

    def _patch(self, restore: Object, patch: Object, subresource: str | None = None) -> Object:
        metadata = restore["metadata"]
        identity = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), **identity}}
        stored = self._client.patch(RESTORE, metadata["namespace"], metadata["name"], guarded, subresource=subresource)
        self._restores.observe(stored)
        return stored


def _target(restore: Object) -> list[str]:
    return [f"{restore['metadata']['namespace']}/{restore['spec']['target']['name']}"]


def _claims(restore: Object) -> list[str]:
    entries = get(restore, "status", "restores") or ()
    return [f"{restore['metadata']['namespace']}/{entry['persistentVolumeClaim']}" for entry in entries]
