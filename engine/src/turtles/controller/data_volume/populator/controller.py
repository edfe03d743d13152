# SPDX-License-Identifier: GPL-3.0-or-later
"""Claim with a dataSourceRef → PVC' → volume: reads the caches, asks the plan, and writes what it says."""

from __future__ import annotations

import logging

from turtles.api import cdi
from turtles.api.objects import Object, annotations_of, is_deleted, own
from turtles.api.phases import phase_of
from turtles.api.populators import prime_name, reference_of
from turtles.controller.data_volume.populator.plan import CREATED, Observed, Plan, plan, refused
from turtles.controller.data_volume.volumes import give, volume_of
from turtles.controller.definition import Definition
from turtles.controller.shared import Shared
from turtles.kube.client import ApiError, Unavailable
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.kubevirt import POPULATORS
from turtles.kube.manager import Controller, Trigger, owner_of
from turtles.kube.resources import PVC, STORAGECLASS
from turtles.log import about

log = logging.getLogger(__name__)

#: Index: the populator's object that a claim names, as "kind/namespace/name".
_BY_SOURCE = "populator"


class PopulatorController:
    """Reconciles claims that populators fill."""

    def __init__(self, shared: Shared) -> None:
        manager = shared.manager
        self._client, self._writer, self._recorder = shared.client, shared.writer, shared.recorder
        self._definition = Definition(manager)
        self._claims, self._data_volumes = shared.caches.pvcs, shared.caches.data_volumes
        self._classes = manager.informer(STORAGECLASS)
        self._sources = {each.kind: manager.informer(each, optional=True) for each in POPULATORS}
        self._claims.add_index(_BY_SOURCE, _source_of)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            Trigger(self._claims, _filled),
            self._definition.decides_on(self._claims),
            owner_of(self._data_volumes, PVC.kind),
            # What is said of an upload is noted on PVC'
            Trigger(self._claims, self._of_prime),
            Trigger(self._classes, lambda old, new: [key_of(claim) for claim in self._claims.list() if _waits(claim)]),
            *(self._naming(informer, kind) for kind, informer in self._sources.items()),
        )
        return Controller("populator", self.reconcile, triggers, essential=False)

    def _naming(self, informer: Informer, kind: str) -> Trigger:
        def keys(old: Object | None, new: Object | None) -> list[Key]:
            namespace, name = key_of(new or old or {})
            return [key_of(claim) for claim in self._claims.by_index(_BY_SOURCE, f"{kind}/{namespace}/{name}")]

        return Trigger(informer, keys)

    def _of_prime(self, old: Object | None, new: Object | None) -> list[Key]:
        metadata = (new or old or {})["metadata"]
        if not metadata["name"].startswith("prime-"):
            return []
        data_volume = self._data_volumes.get(metadata["namespace"], metadata["name"])
        owners = [] if data_volume is None else data_volume["metadata"].get("ownerReferences") or []
        return [(metadata["namespace"], owner["name"]) for owner in owners if owner.get("kind") == PVC.kind]

    def reconcile(self, key: Key) -> None:
        """Bring one claim closer to its content."""
        claim = self._claims.get(*key)
        if claim is None or is_deleted(claim) or reference_of(claim) is None or not self._definition.is_ours():
            return
        observed = self._observed(claim)
        decided = plan(claim, observed)
        try:
            self._carry_out(claim, decided, observed)
        except Unavailable:
            raise
        except ApiError as error:
            # Such as a quota that is exceeded
            self._tell(claim, refused(claim, error.message))
            raise

    def _observed(self, claim: Object) -> Observed:
        reference = reference_of(claim)
        assert reference is not None
        namespace, name = claim["metadata"]["namespace"], prime_name(claim)
        there = self._data_volumes.get(namespace, name)
        data_volume, prime = own(claim, there), self._claims.get(namespace, name)
        class_name = claim["spec"].get("storageClassName")
        is_complete = data_volume is not None and phase_of(data_volume) == cdi.SUCCEEDED
        return Observed(
            self._sources[reference.kind].get(namespace, reference.name),
            self._classes.get(None, class_name) if class_name else None,
            data_volume,
            there is not None and data_volume is None,
            prime if data_volume is not None and own(data_volume, prime) is not None else None,
            volume_of(self._client, prime) if is_complete else None,
        )

    def _carry_out(self, claim: Object, decided: Plan, observed: Observed) -> None:
        if decided.create is not None and self._writer.add(self._data_volumes, decided.create) is not None:
            self._recorder.event(claim, *CREATED)
            log.info("claim is populated on behalf of another one", extra=about("claim", claim))
        if decided.give and observed.volume is not None:
            give(self._client, observed.volume, claim)
            log.info("volume handed over", extra=about("claim", claim, volume=observed.volume["metadata"]["name"]))
        self._tell(claim, decided)
        if decided.delete and observed.data_volume is not None:
            self._writer.delete(self._data_volumes, observed.data_volume)

    def _tell(self, claim: Object, decided: Plan) -> None:
        before = annotations_of(claim)
        new = {key: value for key, value in decided.note.items() if before.get(key) != value}
        if new:
            self._writer.patch(self._claims, claim, {"metadata": {"annotations": new}}, unchanged=False)
        for event in decided.events:
            self._recorder.event(claim, *event)


def _filled(old: Object | None, new: Object | None) -> list[Key]:
    claim = new or old or {}
    return [key_of(claim)] if reference_of(claim) is not None else []


def _waits(claim: Object) -> bool:
    return reference_of(claim) is not None and phase_of(claim) != "Bound"


def _source_of(claim: Object) -> list[str]:
    reference = reference_of(claim)
    return [f"{reference.kind}/{claim['metadata']['namespace']}/{reference.name}"] if reference is not None else []
