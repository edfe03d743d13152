# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds that the server serves at the moment: the built-in ones and what CustomResourceDefinitions add."""

import logging
from dataclasses import replace

from turtles.standalone.apiserver.builtin import crd
from turtles.standalone.apiserver.schema.kinds import BUILTIN, REVIEWS, Kind
from turtles.standalone.apiserver.storage.entries import DELETED, Entry, Event
from turtles.standalone.apiserver.storage.store import Store

log = logging.getLogger(__name__)


class Registry:
    """Looks kinds up by resource or by kind; follows the store's CustomResourceDefinitions."""

    def __init__(self, store: Store) -> None:
        self._builtin = {(kind.group, kind.version, kind.plural): kind for kind in BUILTIN}
        self._kinds = dict(self._builtin)
        self._by_definition: dict[str, list[Kind]] = {}
        #: Counts changes, so that discovery and OpenAPI can cache.
        self.generation = 0
        store.observe(self._on_event)
        for entry in store.entries(crd.RESOURCE):
            self._add(entry)

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """Return the kind behind a path's group, version and resource."""
        return self._kinds.get((group, version, plural))

    def of_object(self, api_version: str, kind: str) -> Kind | None:
        """Return the kind that an object names; of any served version when its own isn't served."""
        group, _, version = api_version.rpartition("/")
        fallback = None
        for candidate in self._kinds.values():
            if candidate.group == group and candidate.kind == kind:
                if candidate.version == version:
                    return candidate
                fallback = candidate
        return fallback

    def versions(self, kind: Kind) -> list[Kind]:
        """Return the served versions of a kind, the preferred first."""
        kinds = [one for one in self._kinds.values() if (one.group, one.plural) == (kind.group, kind.plural)]
        return sorted(kinds, key=lambda one: crd.version_priority(one.version))

    def stored(self, resource: str) -> Kind | None:
        """Return a kind (in any served version) whose objects are stored under ``resource``."""
        return next((kind for kind in self._kinds.values() if kind.resource == resource), None)

    def all(self) -> list[Kind]:
        """Return every kind in every served version."""
        return list(self._kinds.values())

    def groups(self) -> dict[str, list[str]]:
        """Return group -> versions, the preferred first; the core group is ''."""
        groups: dict[str, set[str]] = {}
        for group, version, _ in self._kinds:
            groups.setdefault(group, set()).add(version)
        for review in REVIEWS:
            groups.setdefault(review.group, set()).add(review.version)
        return {group: sorted(versions, key=crd.version_priority) for group, versions in sorted(groups.items())}

    def _on_event(self, event: Event) -> None:
        if event.entry.key.resource != crd.RESOURCE:
            return
        if event.type == DELETED:
            self._remove(event.entry.key.name)
        else:
            self._add(event.entry)

    def _add(self, entry: Entry) -> None:
        before = {kind.version: kind for kind in self._by_definition.get(entry.key.name, ())}
        self._remove(entry.key.name)
        try:
            kinds = crd.kinds(entry.object())
        except (KeyError, TypeError, StopIteration):
            log.exception("a stored CustomResourceDefinition can't be served", extra={"crd": entry.key.name})
            return
        # A definition whose schemas are the same as before, such as one with a new status, changes no objects.
        kinds = [
            replace(kind, reshaped=min(kind.reshaped, old.reshaped))
            if (old := before.get(kind.version)) and old.schema == kind.schema and old.preserve == kind.preserve
            else kind
            for kind in kinds
        ]
        self._by_definition[entry.key.name] = kinds
        for kind in kinds:
            self._kinds.setdefault((kind.group, kind.version, kind.plural), kind)

    def _remove(self, name: str) -> None:
        self.generation += 1
        for kind in self._by_definition.pop(name, ()):
            key = (kind.group, kind.version, kind.plural)
            if key not in self._builtin:
                self._kinds.pop(key, None)
