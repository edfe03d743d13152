# SPDX-License-Identifier: GPL-3.0-or-later
"""StorageClass → StorageProfile: one for each, which says what is known of it, and goes with it.

Where upstream's CDI is installed, nothing is done here.
"""

from __future__ import annotations

import contextlib

from turtles.api.kinds.storage_profile import STORAGE_PROFILE as KIND
from turtles.api.objects import Object, is_deleted
from turtles.api.storage_profiles import status
from turtles.controller.definition import Definition
from turtles.controller.shared import Shared
from turtles.kube.client import AlreadyExists, NotFound
from turtles.kube.informer import Key
from turtles.kube.kubevirt import STORAGE_PROFILE
from turtles.kube.manager import Controller, each
from turtles.kube.resources import STORAGECLASS


class StorageProfileController:
    """Reconciles StorageProfiles."""

    def __init__(self, shared: Shared) -> None:
        manager = shared.manager
        self._writer = shared.writer
        self._definition = Definition(manager)
        self._classes = manager.informer(STORAGECLASS)
        self._profiles = manager.informer(STORAGE_PROFILE, optional=True)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (each(self._classes), each(self._profiles), self._definition.decides_on(self._classes))
        return Controller("storage_profile", self.reconcile, triggers, essential=False)

    def reconcile(self, key: Key) -> None:
        """Bring the profile of one StorageClass up to date."""
        storage_class = self._classes.get(None, key[1])
        if storage_class is None or is_deleted(storage_class) or not self._definition.is_ours():
            return
        try:
            profile = self._profiles.get(None, key[1]) or self._create(storage_class)
        except (AlreadyExists, NotFound):
            # The cache is behind, or the definitions aren't there yet
            return
        with contextlib.suppress(NotFound):
            self._writer.store_status(self._profiles, profile, status(storage_class, profile))

    def _create(self, storage_class: Object) -> Object:
        metadata = storage_class["metadata"]
        owner = {"apiVersion": STORAGECLASS.api_version, "kind": STORAGECLASS.kind}
        reference = {**owner, "name": metadata["name"], "uid": metadata["uid"]}
        profile = {
            "apiVersion": KIND.api_version,
            "kind": KIND.kind,
            "metadata": {"name": metadata["name"], "ownerReferences": [reference]},
            "spec": {},
        }
        return self._writer.create(self._profiles, profile)
