# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstanceReplicaSet → VirtualMachineInstances: reads the caches, asks plan, and writes what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from turtles.api import times
from turtles.api.objects import Object
from turtles.controller import remedies
from turtles.controller.caches import BY_OWNER, UNOWNED_IN, by_selector
from turtles.controller.instances import STOPPED, Instances
from turtles.controller.ownership import claims, references_with, references_without
from turtles.controller.replicaset.plan import Backoff, Plan, plan, replica, status
from turtles.controller.shared import Shared
from turtles.kube.client import ApiError, Conflict, NotFound, Unavailable
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import REPLICASET
from turtles.kube.manager import Controller, Trigger, each


class ReplicaSetController:
    """Reconciles VirtualMachineInstanceReplicaSets."""

    def __init__(self, shared: Shared, clock: Callable[[], float] = time.monotonic) -> None:
        self._writer, self._recorder, self._clock = shared.writer, shared.recorder, clock
        self._vmis, self._instances = shared.caches.vmis, Instances(shared.client, shared.caches.vmis, shared.recorder)
        self._replicasets: Informer = shared.manager.informer(REPLICASET)
        #: With uid and generation: what has been corrected or recreated is tried at once. So it is after a restart.
        self._backoffs: dict[Key, tuple[tuple[str, int], Backoff]] = {}

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        return Controller(
            "replicaset",
            self.reconcile,
            (each(self._replicasets), Trigger(self._vmis, by_selector(self._replicasets, REPLICASET.kind))),
            workers=2,
        )

    def reconcile(self, key: Key) -> float | None:
        """Bring one set closer to its spec; returns seconds after which to look again."""
        replicaset = self._replicasets.get(*key)
        if replicaset is None:
            self._backoffs.pop(key, None)
            return None
        metadata = replicaset["metadata"]
        version = metadata["uid"], int(metadata.get("generation") or 0)
        seen, backoff = self._backoffs.get(key, (version, Backoff()))
        vmis = self._claimed(replicaset)
        decided = plan(replicaset, vmis, backoff if seen == version else Backoff(), self._clock())
        failure, error = self._carry_out(replicaset, decided)
        self._backoffs[key] = version, decided.backoff
        self._store(replicaset, claims(replicaset, self._vmis.by_index(BY_OWNER, metadata["uid"])).own, failure)
        if error is not None:
            raise error
        return decided.wait

    # Ownership

    def _claimed(self, replicaset: Object) -> Sequence[Object]:
        """Return the set's own instances, after it has adopted those that are nobody's and released strays."""
        metadata = replicaset["metadata"]
        unowned = self._vmis.by_index(UNOWNED_IN, metadata["namespace"])
        claimed = claims(replicaset, [*self._vmis.by_index(BY_OWNER, metadata["uid"]), *unowned])
        for vmi in claimed.strays:
            self._instances.patch_metadata(vmi, {"ownerReferences": references_without(vmi, replicaset)})
        if not claimed.orphans or not self._instances.may_be_adopted_by(REPLICASET, replicaset):
            return claimed.own
        return [
            *claimed.own,
            *(
                self._instances.patch_metadata(vmi, {"ownerReferences": references_with(vmi, replicaset)})
                for vmi in claimed.orphans
            ),
        ]

    # Instances

    def _carry_out(self, replicaset: Object, decided: Plan) -> tuple[tuple[str, str] | None, ApiError | None]:
        """Create and delete; return what kept some of it from happening, for the status and to be tried again."""
        try:
            for _ in range(decided.create):
                self._create(replicaset)
        except Unavailable:
            raise
        except ApiError as error:
            return ("FailedCreate", error.message), error
        try:
            for vmi in decided.delete:
                self._instances.delete(replicaset, vmi, STOPPED)
            for vmi in decided.finished:
                self._instances.delete(replicaset, vmi, "Deleted finished virtual machine")
        except (Unavailable, Conflict):
            raise
        except ApiError as error:
            return ("FailedDelete", error.message), error
        return None, None

    def _create(self, replicaset: Object) -> None:
        try:
            vmi = self._writer.create(self._vmis, replica(replicaset))
        except Unavailable:
            raise
        except ApiError as error:
            words = f"Error creating virtual machine instance: {error.message}"
            message = remedies.advised(words, remedies.of_refusal(error))
            self._recorder.event(replicaset, "Warning", "FailedCreate", message)
            raise
        words = f"Started the virtual machine by creating the new virtual machine instance {vmi['metadata']['name']}"
        self._recorder.event(replicaset, "Normal", "SuccessfulCreate", words)

    # Status

    def _store(self, replicaset: Object, vmis: Sequence[Object], failure: tuple[str, str] | None) -> None:
        after = status(replicaset, vmis, failure, times.now())
        try:
            stored = self._writer.store_status(self._replicasets, replicaset, after)
        except NotFound:
            return
        if _paused(replicaset.get("status") or {}) != _paused(after):
            reason, word = ("SuccessfulPaused", "Paused") if _paused(after) else ("SuccessfulResumed", "Resumed")
            self._recorder.event(stored, "Normal", reason, word)


def _paused(status_: Object) -> bool:
    return any(condition.get("type") == "ReplicaPaused" for condition in status_.get("conditions") or ())
