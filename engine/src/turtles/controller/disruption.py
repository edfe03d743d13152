# SPDX-License-Identifier: GPL-3.0-or-later
"""Disruption budgets of VMIs that must not be evicted.

As in KubeVirt a VMI whose evictionStrategy is LiveMigrate or External has a PodDisruptionBudget that allows nothing:
it keeps the Pod even while virt-api, which answers evictions in better words, is away. It goes with its VMI.
"""

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object, is_deleted, owner_reference
from turtles.api.phases import is_final
from turtles.controller.shared import Shared
from turtles.kube.client import AlreadyExists
from turtles.kube.informer import Key
from turtles.kube.kubevirt import VMI
from turtles.kube.manager import Controller, each, owner_of
from turtles.kube.resources import PDB, PDB_BETA

log = logging.getLogger(__name__)

#: Strategies of VMIs that stay where they are until an administrator decides.
KEPT = ("LiveMigrate", "External")


def is_kept(vmi: Mapping[str, Any]) -> bool:
    """Say whether the Pod of a VMI must not be evicted."""
    return vmi["spec"].get("evictionStrategy") in KEPT and not is_final(vmi) and not is_deleted(vmi)


def budget_name(vmi: Mapping[str, Any]) -> str:
    """Return the name of a VMI's budget, always the same."""
    return f"kubevirt-disruption-budget-{hashlib.sha256(vmi['metadata']['uid'].encode()).hexdigest()[:10]}"


def budget(vmi: Mapping[str, Any], api_version: str) -> Object:
    """Return the budget of a VMI."""
    metadata = vmi["metadata"]
    return {
        "apiVersion": api_version,
        "kind": PDB.kind,
        "metadata": {
            "name": budget_name(vmi),
            "namespace": metadata["namespace"],
            "labels": {labels.CREATED_BY: metadata["uid"]},
            "ownerReferences": [owner_reference(vmi)],
        },
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {labels.CREATED_BY: metadata["uid"]}}},
    }


class DisruptionController:
    """Keeps the budgets; its keys are those of VMIs."""

    def __init__(self, shared: Shared) -> None:
        self._writer, self._vmis = shared.writer, shared.caches.vmis
        self._budgets = shared.manager.informer(PDB, label_selector=labels.CREATED_BY, alternatives=(PDB_BETA,))

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        # Nobody's machine waits for it
        triggers = (each(self._vmis), owner_of(self._budgets, VMI.kind))
        return Controller("disruption", self.reconcile, triggers, essential=False)

    def reconcile(self, key: Key) -> None:
        """Make the budget of one VMI where it is missing."""
        vmi = self._vmis.get(*key)
        if vmi is None or not is_kept(vmi):
            return
        if self._budgets.get(key[0], budget_name(vmi)) is not None:
            return
        with contextlib.suppress(AlreadyExists):
            self._writer.create(self._budgets, budget(vmi, self._budgets.resource.api_version))
            log.info("disruption budget created", extra={"namespace": key[0], "vmi": key[1]})
