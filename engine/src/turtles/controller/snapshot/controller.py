# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineSnapshot → content and VolumeSnapshots: reads the caches, asks the plan, and writes what it says."""

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from turtles.api.changes import merge_diff
from turtles.api.kind import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS
from turtles.api.objects import Object, annotations_of, get
from turtles.controller.caches import state_claims
from turtles.controller.shared import Shared
from turtles.controller.snapshot import content as contents
from turtles.controller.snapshot.plan import Plan, Situation, plan, quiesce_failed
from turtles.controller.state_claims import current_claim, is_wanted
from turtles.kube.client import ApiError, NotFound, Unavailable
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.kubevirt import SNAPSHOT, SNAPSHOT_CONTENT
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import STORAGECLASS, VOLUMESNAPSHOT, VOLUMESNAPSHOTCLASS

log = logging.getLogger(__name__)

#: Index of snapshots: the machine that they are of, as ``namespace/name``.
BY_SOURCE = "source"
_DEFAULT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"


class SnapshotController:
    """Reconciles VirtualMachineSnapshots."""

    def __init__(self, shared: Shared) -> None:
        manager, caches = shared.manager, shared.caches
        self._client, self._writer, self._recorder = shared.client, shared.writer, shared.recorder
        self._vms, self._vmis, self._pvcs = caches.vms, caches.vmis, caches.pvcs
        self._snapshots, self._contents = manager.informer(SNAPSHOT), manager.informer(SNAPSHOT_CONTENT)
        self._snapshots.add_index(BY_SOURCE, _source)
        # A cluster without a CSI driver that makes snapshots hasn't got these
        self._volume_snapshots = manager.informer(VOLUMESNAPSHOT, optional=True)
        self._snapshot_classes = manager.informer(VOLUMESNAPSHOTCLASS, optional=True)
        self._storage_classes = manager.informer(STORAGECLASS)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._snapshots),
            Trigger(self._vms, self._of_machine),
            Trigger(self._contents, _of_content),
            Trigger(self._volume_snapshots, self._of_volume_snapshot),
        )
        reads: Sequence[Informer] = (self._vmis, self._pvcs, self._snapshot_classes, self._storage_classes)
        return Controller("snapshot", self.reconcile, triggers, reads=reads, workers=2, essential=False)

    def _of_machine(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return the snapshots of a machine that appears, goes or is let go by another operation."""
        if old is not None and new is not None and _locks(old) == _locks(new):
            return []
        return [key_of(entry) for entry in self._snapshots.by_index(BY_SOURCE, "/".join(key_of(new or old or {})))]

    def _of_volume_snapshot(self, old: Object | None, new: Object | None) -> list[Key]:
        obj = new or old or {}
        namespace = obj["metadata"]["namespace"]
        for owner in obj["metadata"].get("ownerReferences") or ():
            content = self._contents.get(namespace, owner["name"]) if owner["kind"] == SNAPSHOT_CONTENT.kind else None
            if content is not None:
                return [(namespace, content["spec"].get("virtualMachineSnapshotName") or "")]
        return []

    def reconcile(self, key: Key) -> float | None:
        """Bring one snapshot closer to its end; returns seconds after which to look again."""
        snapshot = self._snapshots.get(*key)
        if snapshot is None:
            return None
        situation, now = self._situation(snapshot), datetime.now(UTC)
        decided = plan(snapshot, situation, now)
        if decided.finalizers is not None and not _is_last(decided):
            snapshot = self._set_finalizers(snapshot, decided.finalizers)
        if decided.lock and situation.vm is not None:
            self._lock(situation.vm, snapshot["metadata"]["name"])
        if decided.freeze is not None:
            self._freeze(snapshot, decided, now)
        for obj in decided.create:
            self._writer.create_or_get(self._volume_snapshots, obj)
        if decided.thaw:
            self._thaw(snapshot)
        if decided.content_status is not None and situation.content is not None:
            changes = merge_diff(situation.content.get("status") or {}, decided.content_status)
            self._writer.patch(
                self._contents, situation.content, {"status": changes}, subresource="status", unchanged=False
            )
        snapshot = self._writer.store_status(self._snapshots, snapshot, decided.status)
        if decided.create_content is not None:
            # Only now: the status has how the guest is, which decides what is done next
            self._writer.create_or_get(self._contents, decided.create_content)
        if decided.lock is False and situation.vm is not None:
            self._unlock(situation.vm, snapshot["metadata"]["name"])
        if decided.delete_content and situation.content is not None:
            self._writer.delete(self._contents, situation.content, propagation="Background")
        if decided.event is not None:
            self._recorder.event(snapshot, *decided.event)
        if decided.finalizers is not None and _is_last(decided):
            with contextlib.suppress(NotFound):
                self._set_finalizers(snapshot, decided.finalizers)
        return decided.wait

    def _situation(self, snapshot: Object) -> Situation:
        namespace, name = snapshot["metadata"]["namespace"], snapshot["spec"]["source"]["name"]
        vm, uid = self._vms.get(namespace, name), get(snapshot, "status", "sourceUID")
        if vm is not None and uid not in (None, vm["metadata"]["uid"]):
            vm = None  # another one has its name by now
        content = self._contents.get(namespace, contents.name_of(snapshot))
        backups = contents.backups_of(content) if content is not None else ()
        names = [backup["volumeSnapshotName"] for backup in backups]
        existing = {name: obj for name in names if (obj := self._volume_snapshots.get(namespace, name)) is not None}
        pvcs = {} if vm is None else {name: self._pvcs.get(namespace, name) for name in contents.claims_of(vm)}
        vmi = self._vmis.get(namespace, name) if vm is not None else None
        kept = None if vm is None else self._state_claim(vm)
        if kept is not None:
            pvcs[kept["metadata"]["name"]] = kept
        state_claim = None if kept is None else kept["metadata"]["name"]
        return Situation(vm, vmi, content, existing, pvcs, self._classes(), state_claim)

    def _state_claim(self, vm: Object) -> Object | None:
        """Return the claim with the state of a machine's TPM; None if it has never been started, or keeps none."""
        if not is_wanted(vm["spec"]["template"]["spec"]):
            return None
        namespace, name = vm["metadata"]["namespace"], vm["metadata"]["name"]
        return self._pvcs.get(namespace, current_claim(vm, state_claims(self._pvcs, namespace, name)))

    def _classes(self) -> dict[str, str]:
        """Return by StorageClass the VolumeSnapshotClass of its driver: the default one, or the first by name."""
        by_driver: dict[str, str] = {}
        known = sorted(
            self._snapshot_classes.list(), key=lambda each: (not _is_default(each), each["metadata"]["name"])
        )
        for entry in known:
            by_driver.setdefault(entry["driver"], entry["metadata"]["name"])
        return {
            entry["metadata"]["name"]: by_driver[entry["provisioner"]]
            for entry in self._storage_classes.list()
            if entry.get("provisioner") in by_driver
        }

    # The machine

    def _lock(self, vm: Object, name: str) -> None:
        """Note the snapshot in its machine's status, unless somebody was there first."""
        self._patch_machine(vm, {"snapshotInProgress": name})

    def _unlock(self, vm: Object, name: str) -> None:
        if get(vm, "status", "snapshotInProgress") == name:
            with contextlib.suppress(NotFound):
                self._patch_machine(vm, {"snapshotInProgress": None})

    def _patch_machine(self, vm: Object, status: Object) -> None:
        self._writer.patch(self._vms, vm, {"status": status}, subresource="status")

    def _freeze(self, snapshot: Object, decided: Plan, now: datetime) -> None:
        try:
            # The API has whole seconds, and 0 is no limit
            seconds = max(1, int(decided.freeze)) if decided.freeze else 0
            self._ask(snapshot, "freeze", {"unfreezeTimeout": f"{seconds}s"})
        except ApiError as error:
            log.warning("can't freeze a guest: %s", error, extra={"snapshot": snapshot["metadata"]["name"]})
            quiesce_failed(decided, error.message, now)

    def _thaw(self, snapshot: Object) -> None:
        """Have the guest go on. One that can't thaw now does so by itself in time, or is gone."""
        try:
            self._ask(snapshot, "unfreeze", {})
        except Unavailable:
            raise
        except ApiError as error:
            log.warning("can't thaw a guest: %s", error, extra={"snapshot": snapshot["metadata"]["name"]})

    def _ask(self, snapshot: Object, operation: str, body: Object) -> None:
        namespace, name = snapshot["metadata"]["namespace"], snapshot["spec"]["source"]["name"]
        group = f"/apis/{SUBRESOURCES_GROUP}/{SUBRESOURCES_VERSIONS[0]}"
        path = f"{group}/namespaces/{namespace}/virtualmachineinstances/{name}/{operation}"
        self._client.put_raw(path, body)

    def _set_finalizers(self, snapshot: Object, finalizers: Sequence[str]) -> Object:
        return self._writer.patch(self._snapshots, snapshot, {"metadata": {"finalizers": list(finalizers)}})


def _is_last(decided: Plan) -> bool:
    """Say whether the finalizers are those of a snapshot that goes: all else comes before."""
    return bool(decided.status.get("phase") == "Deleting")


def _is_default(entry: Object) -> bool:
    return annotations_of(entry).get(_DEFAULT_CLASS) == "true"


def _locks(vm: Object) -> tuple[object, ...]:
    return get(vm, "status", "snapshotInProgress"), get(vm, "status", "restoreInProgress")


def _source(snapshot: Object) -> list[str]:
    return [f"{snapshot['metadata']['namespace']}/{snapshot['spec']['source']['name']}"]


def _of_content(old: Object | None, new: Object | None) -> list[Key]:
    obj = new or old or {}
    name = obj["spec"].get("virtualMachineSnapshotName")
    return [(obj["metadata"]["namespace"], name)] if name else []
