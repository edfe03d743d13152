# SPDX-License-Identifier: GPL-3.0-or-later
"""List: the objects that a client selects, a page at a time, as they are or as they were."""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import ADDED, Entry, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.views.watch import Selection
from turtles.standalone.apiserver.wire.errors import StatusError, bad_request, expired

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
)


@dataclass
class Page:
    """A page of a list."""

    entries: list[Entry]
    #: The list's resourceVersion.
    version: int
    #: ``continue`` of the next page, '' for the last one.
    token: str = ""
    #: How many objects follow, None where that is unknown.
    remaining: int | None = None


async def list_page(
    resources: Resources, kind: Kind, selection: Selection, limit: int, token: str, version: int = 0
) -> Page:
    """Return a page of a list.

    :param limit: entries at most, 0 for all.
    :param token: ``continue`` of the page before.
    :param version: exact version of the list wanted, 0 for the newest.
    :raises StatusError: 410 for a version that is too old, 400 for no token.
    """
    await prepare(resources, kind, selection, token, version)
    store = resources.store
    after: Key | None = None
    if token:
        version, after = _parse_token(token, kind.resource)
    if version and version < store.compacted:
        raise StatusError(410, "Expired", _TOO_OLD) if token else expired(version, store.compacted)
    selected = _selected(store, kind, selection, after, version)
    page = Page([], version or store.version)
    for entry in selected:
        if limit and len(page.entries) == limit:
            if not (selection.labels or selection.fields):
                page.remaining = 1 + sum(1 for _ in selected)
            page.token = _make_token(page.version, page.entries[-1].key)
            return page
        page.entries.append(entry)
    return page


async def prepare(resources: Resources, kind: Kind, selection: Selection, token: str = "", version: int = 0) -> None:
    """Have converted what a selection looks into: afterwards, before anything is awaited, it can be applied.

    :param token: see :func:`list_page`, as for ``version``.
    """
    if not selection.looks_inside:
        return
    if token:
        version, _ = _parse_token(token, kind.resource)
    store, strategy = resources.store, resources.strategy(kind)
    version = max(version, store.compacted)
    whole = Selection(selection.namespace)
    while unconverted := strategy.unconverted(_selected(store, kind, whole, None, version), kind):
        await strategy.convert_entries(unconverted, kind)


def _selected(store: Store, kind: Kind, selection: Selection, after: Key | None, version: int) -> Iterator[Entry]:
    if version and version < store.version:
        entries: Iterable[Entry] = _entries_at(store, kind.resource, version, after)
    elif selection.name and after is None:
        entries = _named(store, kind, selection)
    else:
        entries = store.entries(kind.resource, selection.namespace, after)
    return (entry for entry in entries if selection(entry))


def _named(store: Store, kind: Kind, selection: Selection) -> Iterable[Entry]:
    if kind.namespaced and not selection.namespace:
        return [one for one in store.entries(kind.resource) if one.key.name == selection.name]
    entry = store.get(Key(kind.resource, selection.namespace, selection.name))
    return [entry] if entry else []


def _entries_at(store: Store, resource: str, version: int, after: Key | None) -> Iterator[Entry]:
    """Yield a resource's objects as they were at an earlier version."""
    state = dict(store.table(resource).entries)
    for event in reversed(store.since(resource, version)):
        if event.previous is None or event.type == ADDED:
            state.pop(event.entry.key, None)
        else:
            state[event.entry.key] = event.previous
    for key in sorted(state):
        if after is None or key > after:
            yield state[key]


def _make_token(version: int, key: Key) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "ns": key.namespace, "name": key.name})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse_token(token: str, resource: str) -> tuple[int, Key]:
    try:
        data = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, key = data["rv"], Key(resource, data["ns"], data["name"])
        if not isinstance(version, int) or not all(isinstance(part, str) for part in key):
            raise TypeError
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid") from None
    return version, key
