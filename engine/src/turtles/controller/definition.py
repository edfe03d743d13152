# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose definition of DataVolumes is in force: this engine's, or upstream's, which then does all of the work."""

from __future__ import annotations

from turtles.api import cdi
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.objects import Object
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.manager import Manager, Trigger
from turtles.kube.resources import CRD


class Definition:
    """The CustomResourceDefinition of DataVolumes, which stands for all kinds of its group."""

    def __init__(self, manager: Manager) -> None:
        self._definitions = manager.informer(CRD, field_selector=f"metadata.name={DATA_VOLUME.crd_name}")

    def is_ours(self) -> bool:
        """Say whether it is this engine's."""
        definition = self._definitions.get(None, DATA_VOLUME.crd_name)
        return definition is not None and cdi.is_ours(definition)

    def decides_on(self, objects: Informer) -> Trigger:
        """Return the trigger that has all objects of a cache looked at when the definition becomes ours, or theirs."""

        def keys(old: Object | None, new: Object | None) -> list[Key]:
            before, after = (obj is not None and cdi.is_ours(obj) for obj in (old, new))
            return [key_of(obj) for obj in objects.list()] if before != after else []

        return Trigger(self._definitions, keys)
