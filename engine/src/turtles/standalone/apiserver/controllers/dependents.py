# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects name which owners, by the owners' uids: kept up to date from events, so that nobody has to search."""

from turtles.standalone.apiserver.storage.entries import Entry, Key


class Dependents:
    """The owner references of all objects."""

    def __init__(self) -> None:
        self._by_owner: dict[str, set[Key]] = {}
        self._owners: dict[Key, tuple[str, ...]] = {}

    def of(self, uid: str) -> list[Key]:
        """Return the objects that name an owner."""
        return list(self._by_owner.get(uid, ()))

    def update(self, entry: Entry) -> None:
        """Take note of an object as it is now."""
        owners = tuple({reference.uid: None for reference in entry.metadata.owner_references or ()})
        if owners == self._owners.get(entry.key, ()):
            return
        self.forget(entry.key)
        if owners:
            self._owners[entry.key] = owners
            for uid in owners:
                self._by_owner.setdefault(uid, set()).add(entry.key)

    def forget(self, key: Key) -> None:
        """Take note that an object is gone."""
        for uid in self._owners.pop(key, ()):
            keys = self._by_owner[uid]
            keys.discard(key)
            if not keys:
                del self._by_owner[uid]
