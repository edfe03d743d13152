# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachinePool → VirtualMachines: reads the caches, asks plan and status, and writes what they say."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from turtles.api import times
from turtles.api.changes import merge_diff
from turtles.api.labels import POOL_FINALIZER, POOL_REVISION
from turtles.api.objects import Object, controller_of, is_deleted, labels_of
from turtles.api.phases import is_final
from turtles.api.run_strategies import MANUAL, RERUN_ON_FAILURE, START, STOP, run_strategy
from turtles.api.selectors import selects
from turtles.controller import remedies
from turtles.controller.caches import BY_OWNER, UNOWNED_IN, by_selector
from turtles.controller.claims import claim_names
from turtles.controller.instances import Instances
from turtles.controller.ownership import claims, references_with, references_without
from turtles.controller.pool.machine import (
    index_of,
    make_machine,
    name_of,
    revision_of,
    template_in,
    updated,
)
from turtles.controller.pool.plan import Observed, Plan, plan
from turtles.controller.pool.revisions import Revisions
from turtles.controller.pool.selection import SelectionError
from turtles.controller.pool.status import SUCCESSFUL_PAUSED, SUCCESSFUL_RESUME, status
from turtles.controller.scaled import PAUSED
from turtles.controller.shared import Shared
from turtles.kube.client import AlreadyExists, ApiError, Conflict, NotFound, Unavailable
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import POOL
from turtles.kube.manager import Controller, Trigger, each
from turtles.log import about

log = logging.getLogger(__name__)

#: Run strategies with which a machine doesn't start an instance in place of one that is deleted.
_BY_REQUEST = (MANUAL, RERUN_ON_FAILURE)


@dataclass(frozen=True)
class _Failure:
    """What kept a pool from being as wanted: for its condition, and to be tried again."""

    reason: str
    message: str
    error: ApiError | None = None


class PoolController:
    """Reconciles VirtualMachinePools."""

    def __init__(self, shared: Shared, chance: Callable[[], float] = random.random) -> None:
        """Make the controller.

        :param chance: gives 0…1, for what is chosen at random.
        """
        caches = shared.caches
        self._writer, self._recorder, self._chance = shared.writer, shared.recorder, chance
        self._vms, self._vmis, self._pvcs = caches.vms, caches.vmis, caches.pvcs
        self._instances = Instances(shared.client, caches.vmis, shared.recorder)
        self._pools: Informer = shared.manager.informer(POOL)
        self._revisions = Revisions(shared.client, shared.manager)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (each(self._pools), Trigger(self._vms, by_selector(self._pools, POOL.kind)))
        return Controller(
            "pool", self.reconcile, triggers, reads=(self._vmis, self._pvcs, self._revisions.cache), workers=2
        )

    def reconcile(self, key: Key) -> float | None:
        """Bring one pool closer to its spec; returns seconds after which to look again."""
        pool = self._pools.get(*key)
        if pool is None:
            self._release_strays(key)
            return None
        if is_deleted(pool):
            self._let_go(pool)
            return None
        pool = self._with_finalizer(pool)
        vms = self._claimed(pool)
        decided, failure = self._decide(pool, vms)
        failure = self._carry_out(pool, decided) or failure
        self._store(pool, self._own(pool), failure)
        if failure is not None and failure.error is not None:
            raise failure.error
        return decided.wait

    def _decide(self, pool: Object, vms: Sequence[Object]) -> tuple[Plan, _Failure | None]:
        instances = {vm["metadata"]["name"]: vmi for vm in vms if (vmi := self._instance_of(vm)) is not None}
        revisions = self._revisions.known(pool, (*vms, *instances.values()))
        names = [vm["metadata"]["name"] for vm in self._vms.list(pool["metadata"]["namespace"])]
        observed = Observed(names, instances, revisions, datetime.now(UTC), self._chance)
        try:
            return plan(pool, vms, observed), None
        except SelectionError as error:
            message = f"failed to filter VMs based on ordered policies: {error}"
            return Plan(), _Failure("FailedUpdate", message)

    def _instance_of(self, vm: Object) -> Object | None:
        vmi = self._vmis.get(vm["metadata"]["namespace"], vm["metadata"]["name"])
        owner = controller_of(vmi) if vmi is not None else None
        return vmi if owner is not None and owner.get("uid") == vm["metadata"]["uid"] else None

    # Ownership

    def _own(self, pool: Object) -> list[Object]:
        return claims(pool, self._vms.by_index(BY_OWNER, pool["metadata"]["uid"])).own

    def _claimed(self, pool: Object) -> Sequence[Object]:
        """Return the pool's own machines, after it has adopted those with its names and released strays."""
        metadata = pool["metadata"]
        unowned = self._vms.by_index(UNOWNED_IN, metadata["namespace"])
        claimed = claims(pool, [*self._vms.by_index(BY_OWNER, metadata["uid"]), *unowned])
        for vm in claimed.strays:
            self._patch(vm, {"ownerReferences": references_without(vm, pool), "finalizers": _without_finalizer(vm)})
        orphans = [vm for vm in claimed.orphans if index_of(pool, vm["metadata"]["name"]) is not None]
        if not orphans or not self._instances.may_be_adopted_by(POOL, pool):
            return claimed.own
        return [*claimed.own, *(self._adopt(pool, vm) for vm in orphans)]

    def _adopt(self, pool: Object, vm: Object) -> Object:
        # Its revision is another pool's: it gets this one's template with the next look
        labels = {key: value for key, value in labels_of(vm).items() if key != POOL_REVISION}
        finalizers = [*_without_finalizer(vm), POOL_FINALIZER]
        references = references_with(vm, pool)
        return self._patch(vm, {"ownerReferences": references, "finalizers": finalizers, "labels": labels})

    def _let_go(self, pool: Object) -> None:
        """Release the machines of a pool that is being deleted: they go after it, or stay if it was deleted so."""
        metadata = pool["metadata"]
        # The garbage collector may have taken the reference already of one that stays
        unowned = self._vms.by_index(UNOWNED_IN, metadata["namespace"])
        claimed = claims(pool, self._vms.by_index(BY_OWNER, metadata["uid"]))
        selected = (vm for vm in unowned if selects(pool["spec"]["selector"], labels_of(vm)))
        for vm in (*claimed.own, *claimed.strays, *selected):
            self._release(vm)
        if POOL_FINALIZER in (pool["metadata"].get("finalizers") or ()):
            self._writer.patch(self._pools, pool, {"metadata": {"finalizers": _without_finalizer(pool)}})

    def _release_strays(self, key: Key) -> None:
        """Let machines go that are deleted after their pool, which somebody removed without asking us."""
        for vm in self._vms.list(key[0]):
            owner = controller_of(vm) or {}
            if is_deleted(vm) and (owner.get("kind"), owner.get("name")) == (POOL.kind, key[1]):
                self._release(vm)

    def _release(self, vm: Object) -> None:
        if POOL_FINALIZER in (vm["metadata"].get("finalizers") or ()):
            self._patch(vm, {"finalizers": _without_finalizer(vm)})

    def _with_finalizer(self, pool: Object) -> Object:
        if POOL_FINALIZER in (pool["metadata"].get("finalizers") or ()):
            return pool
        finalizers = [*_without_finalizer(pool), POOL_FINALIZER]
        return self._writer.patch(self._pools, pool, {"metadata": {"finalizers": finalizers}})

    # Carrying out

    def _carry_out(self, pool: Object, decided: Plan) -> _Failure | None:
        """Do what was decided, up to the first thing that can't be done."""
        steps: tuple[tuple[str, str, Callable[[], None]], ...] = (
            ("FailedScaleIn", "error during scale in", lambda: self._scale_in(pool, decided)),
            ("FailedScaleOut", "error during scale out", lambda: self._scale_out(pool, decided.create)),
            ("FailedUpdate", "error during VM update", lambda: self._update(pool, decided.update)),
            ("FailedUpdate", "error during VMI update", lambda: self._roll_out(pool, decided)),
            (
                "FailedRevisionPruning",
                "error while pruning vmpool revisions",
                lambda: self._revisions.prune(pool, decided.prune),
            ),
        )
        for reason, words, step in steps:
            try:
                step()
            except (Unavailable, Conflict):
                raise
            except ApiError as error:
                return _Failure(reason, f"{words}: {error.message}", error)
        return None

    def _scale_in(self, pool: Object, decided: Plan) -> None:
        for vm in decided.release:
            if decided.preserve:
                self._preserve_claims(vm)
            self._release(vm)
            log.info("VM released", extra=about("vm", vm))
        for vm in decided.delete:
            self._delete(pool, vm, "Deleted VM {key} with uid {uid} from pool")
        for vm in decided.replace:
            self._delete(pool, vm, "Successfully updated resource {key}")

    def _delete(self, pool: Object, vm: Object, words: str) -> None:
        key = _text(vm)
        try:
            deleted = self._writer.delete(self._vms, vm, unchanged=True)
        except (Unavailable, Conflict):
            raise
        except ApiError as error:
            message = f"Error deleting virtual machine {key}: {error.message}"
            self._recorder.event(pool, "Warning", "FailedDelete", message)
            raise
        if deleted:
            message = words.format(key=key, uid=vm["metadata"]["uid"])
            self._recorder.event(pool, "Normal", "SuccessfulDelete", message)

    def _preserve_claims(self, vm: Object) -> None:
        """Have the claims that a machine owns outlive it; the next machine of its name uses them again."""
        template = (vm["spec"].get("template") or {}).get("spec") or {}
        for name in claim_names(template):
            pvc = self._pvcs.get(vm["metadata"]["namespace"], name)
            if pvc is None:
                continue
            references = references_without(pvc, vm)
            if references != (pvc["metadata"].get("ownerReferences") or []):
                self._writer.patch(self._pvcs, pvc, {"metadata": {"ownerReferences": references}})

    def _scale_out(self, pool: Object, indexes: Iterable[int]) -> None:
        for index in indexes:
            self._revisions.ensure(pool)
            try:
                vm = self._writer.create(self._vms, make_machine(pool, index))
            except AlreadyExists as error:
                # The cache was behind: another name is free
                raise Conflict(409, "Conflict", error.message) from error
            except Unavailable:
                raise
            except ApiError as error:
                message = f"Error creating VM {name_of(pool, index)}: {error.message}"
                advised = remedies.advised(message, remedies.of_refusal(error))
                self._recorder.event(pool, "Warning", "FailedCreate", advised)
                raise
            self._recorder.event(pool, "Normal", "SuccessfulCreate", f"Created VM {_text(vm)}")

    def _update(self, pool: Object, vms: Iterable[Object]) -> None:
        for vm in vms:
            self._revisions.ensure(pool)
            before = self._revisions.get(pool, revision_of(vm))
            after = updated(pool, vm, template_in(before))
            metadata = {key: after["metadata"][key] for key in ("labels", "annotations")}
            try:
                self._patch(vm, metadata, {"spec": merge_diff(vm["spec"], after["spec"])})
            except (Unavailable, Conflict):
                raise
            except ApiError as error:
                message = f"Error updating virtual machine {_text(vm)}: {error.message}"
                self._recorder.event(pool, "Warning", "FailedUpdate", message)
                raise
            self._recorder.event(pool, "Normal", "SuccessfulUpdate", f"Updated VM {_text(vm)}")

    def _roll_out(self, pool: Object, decided: Plan) -> None:
        for vm in decided.restart:
            if (instance := self._instance_of(vm)) is not None:
                self._restart(pool, vm, instance)
        for vm in decided.relabel:
            if (instance := self._instance_of(vm)) is not None:
                labels = {**labels_of(instance), POOL_REVISION: revision_of(vm)}
                self._instances.patch_metadata(instance, {"labels": labels})

    def _restart(self, pool: Object, vm: Object, vmi: Object) -> None:
        """Have a machine start another instance in place of one that isn't what it should be."""
        if run_strategy(vm) in _BY_REQUEST and not is_final(vmi):
            requests = [{"action": STOP, "uid": vmi["metadata"]["uid"]}, {"action": START}]
            self._writer.patch(self._vms, vm, {"status": {"stateChangeRequests": requests}}, subresource="status")
            words = f"Requested a restart of VM {_text(vm)}"
            self._recorder.event(pool, "Normal", "SuccessfulUpdate", words)
        else:
            self._instances.delete(pool, vmi, "Replacing the outdated virtual machine instance")

    # Status

    def _store(self, pool: Object, vms: Sequence[Object], failure: _Failure | None) -> None:
        before = pool.get("status") or {}
        after = status(pool, vms, (failure.reason, failure.message) if failure else None, times.now())
        try:
            stored = self._writer.store_status(self._pools, pool, after)
        except NotFound:
            return
        if failure is not None and before.get("conditions") != after.get("conditions"):
            self._recorder.event(stored, "Warning", failure.reason, failure.message)
        if _is_paused(before) != _is_paused(after):
            paused = (SUCCESSFUL_PAUSED, "Pool is paused"), (SUCCESSFUL_RESUME, "Pool is unpaused")
            self._recorder.event(stored, "Normal", *paused[not _is_paused(after)])

    # Writing

    def _patch(self, vm: Object, metadata: Object, patch: Object | None = None) -> Object:
        changes = merge_diff(_part(vm, metadata), metadata)
        return self._writer.patch(self._vms, vm, {**(patch or {}), "metadata": changes})


def _part(obj: Object, like: Object) -> Object:
    """Return the members of an object's metadata that another has."""
    return {key: value for key, value in obj["metadata"].items() if key in like}


def _without_finalizer(obj: Object) -> list[str]:
    return [name for name in obj["metadata"].get("finalizers") or () if name != POOL_FINALIZER]


def _text(vm: Object) -> str:
    return f"{vm['metadata']['namespace']}/{vm['metadata']['name']}"


def _is_paused(status_: Object) -> bool:
    return any(condition.get("type") == PAUSED for condition in status_.get("conditions") or ())
