# SPDX-License-Identifier: GPL-3.0-or-later
"""Disruption budgets of VMIs that must not be evicted.

As in KubeVirt a VMI whose evictionStrategy is LiveMigrate or External has a PodDisruptionBudget that allows nothing:
it keeps the Pod even while virt-api, which answers evictions in better words, is away. It goes with its VMI.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object, controller_of, is_deleted, owner_reference
from turtles.api.phases import is_final
from turtles.controller.server import version_of
from turtles.kube.client import AlreadyExists, Client
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import VMI
from turtles.kube.resources import PDB, PDB_BETA

log = logging.getLogger(__name__)

#: Strategies of VMIs that stay where they are until somebody decides.
KEPT = ("LiveMigrate", "External")
#: Version of Kubernetes that brought policy/v1.
_STABLE_SINCE = (1, 21)


def is_kept(vmi: Mapping[str, Any]) -> bool:
    """Whether the Pod of a VMI must not be evicted."""
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
    """Keeps the budgets; :meth:`reconcile` is called by the workers with keys of VMIs."""

    def __init__(self, client: Client, vmis: Informer) -> None:
        self._client, self._vmis = client, vmis
        self._budgets: Informer | None = None
        self._resource = PDB

    def start(self, changed: Callable[[Key], None]) -> None:
        """Start looking at what is there; ``changed`` is called with a VMI whose budget changed.

        :raises ApiError: the API server can't be asked for its version.
        """
        self._resource = PDB if version_of(self._client.request("GET", "/version")) >= _STABLE_SINCE else PDB_BETA
        self._budgets = Informer(self._client, self._resource, label_selector=labels.CREATED_BY)

        def told(old: Object | None, new: Object | None) -> None:
            owner = controller_of(new or old or {"metadata": {}})
            if new is None and owner is not None and owner.get("kind") == VMI.kind and old is not None:
                changed((old["metadata"]["namespace"], owner["name"]))

        self._budgets.add_handler(told)
        self._budgets.start()
        self._budgets.wait_synced(10.0)

    def stop(self) -> None:
        """Stop looking."""
        if self._budgets is not None:
            self._budgets.stop(timeout=0)

    def reconcile(self, key: Key) -> None:
        """Make the budget of one VMI where it is missing."""
        vmi = self._vmis.get(*key)
        if vmi is None or self._budgets is None or not is_kept(vmi):
            return
        if self._budgets.get(key[0], budget_name(vmi)) is not None:
            return
        with contextlib.suppress(AlreadyExists):
            self._budgets.observe(self._client.create(self._resource, budget(vmi, self._resource.api_version)))
            log.info("disruption budget created", extra={"namespace": key[0], "vmi": key[1]})
