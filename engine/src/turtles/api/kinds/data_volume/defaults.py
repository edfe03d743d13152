# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DataVolume gets when it is created: a note of what its DataSource leads to, and that disk's labels.

A DataSource may lead to something else a moment later. What its user may copy is checked by admission, so that is what
the disk will be a copy of, and the note is nobody's to change.
"""

from __future__ import annotations

import copy
from typing import Any

from turtles.api import cdi
from turtles.api.data_sources import KIND, CopySource, Unresolved, reference_of, resolve
from turtles.api.kind import DEFAULT_CONTEXT, Context, Missing
from turtles.api.kinds.data_volume.schema import SPEC
from turtles.api.objects import Object, get
from turtles.api.rules import is_well_formed


def default(data_volume: Object, context: Context = DEFAULT_CONTEXT) -> Object:
    """Return a new DataVolume with the note, or without one that its user has written.

    One that the engine itself has written stays: the rights were checked with it.
    """
    if not is_well_formed(data_volume, SPEC):
        return data_volume
    noted = CopySource.parse(str(get(data_volume, "metadata", "annotations", cdi.CLONE_SOURCE) or ""))
    if reference_of(data_volume) is None:
        return _noting(data_volume, None)
    if context.privileged and noted is not None:
        return data_volume
    source, labels = _lookup(data_volume, context)
    new = _noting(data_volume, None if source is None else str(source))
    missing = {key: value for key, value in labels.items() if key not in (get(new, "metadata", "labels") or {})}
    if missing:
        new = copy.deepcopy(new)
        new["metadata"]["labels"] = {**(new["metadata"].get("labels") or {}), **missing}
    return new


def default_update(data_volume: Object, old: Object, context: Context = DEFAULT_CONTEXT) -> Object:
    """Return an updated DataVolume with the note that it had."""
    return _noting(data_volume, get(old, "metadata", "annotations", cdi.CLONE_SOURCE))


def _lookup(data_volume: Object, context: Context) -> tuple[CopySource | None, dict[str, str]]:
    def find(namespace: str, name: str) -> Object:
        return context.find(KIND, namespace, name)

    try:
        data_source = find(*(reference_of(data_volume) or ("", "")))
        return resolve(data_source, find), cdi.disk_labels(data_source)
    except (Missing, Unresolved):
        # Validation says what is wrong
        return None, {}


def _noting(data_volume: Object, note: Any) -> Object:
    metadata = data_volume.get("metadata")
    annotations = dict(get(data_volume, "metadata", "annotations") or {})
    if not isinstance(metadata, dict) or annotations.get(cdi.CLONE_SOURCE) == note:
        return data_volume
    annotations.pop(cdi.CLONE_SOURCE, None)
    if note is not None:
        annotations[cdi.CLONE_SOURCE] = note
    return {**data_volume, "metadata": {**metadata, "annotations": annotations}}
