# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete."""

import copy
from datetime import UTC, datetime, timedelta

from turtles.api.times import rfc3339
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.resource.get import get_settled
from turtles.standalone.apiserver.resource.resources import ATTEMPTS, Resources
from turtles.standalone.apiserver.resource.write import is_same, remove
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.storage.store import Stale
from turtles.standalone.apiserver.wire.encoding import encode
from turtles.standalone.apiserver.wire.errors import Object, conflict
from turtles.standalone.apiserver.wire.options import DeleteOptions

#: Finalizers by the propagationPolicy that asks for them.
_PROPAGATION = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
_WHAT_HAPPENED = {"UID": "deleted and then recreated", "ResourceVersion": "modified"}


async def delete(resources: Resources, context: Context, options: DeleteOptions) -> tuple[Entry, bool]:
    """Delete an object, or mark it for deletion.

    Only its metadata counts, so it stays in the version that it is stored in: no conversion can keep it from going.

    :param options: preconditions, the grace period and the propagation policy.
    :returns: its last state, and whether it is gone already.
    :raises StatusError: 404 if it isn't there, 409 if a precondition isn't met or others change it all the time, and
        what a webhook answers that refuses.
    """
    kind, strategy = context.kind, resources.strategy(context.kind)
    strategy.check_delete(context)
    admitted = False
    for _ in range(ATTEMPTS):
        entry = await get_settled(resources, context)
        old = entry.object()
        _check_preconditions(context, options, old)
        if not admitted:
            # Webhooks want to see it in the version that the client asked for.
            shown = await strategy.load(entry, kind) if resources.admission.is_asked(context, "DELETE") else old
            await resources.admission.mutate(context, "DELETE", None, shown, options.raw)
            await resources.admission.validate(context, "DELETE", None, shown, options.raw)
            admitted = True
            if resources.store.get(context.key) is not entry:
                continue
        new = copy.deepcopy(old)
        gone = _mark_deleted(strategy, new, options)
        if gone and not strategy.ends_gracefully:
            # Without finalizers to wait for, clients see no time of its end.
            new = old
        try:
            if context.dry_run:
                return Entry(context.key, entry.version, encode(new)), gone
            if gone:
                return await remove(resources, context, entry, new), True
            if is_same(new, old):
                return entry, False
            return await resources.store.put(context.key, new, entry.version), False
        except Stale:
            continue
    raise conflict(kind.group, kind.plural, context.name)


def is_finished(strategy: Strategy, obj: Object) -> bool:
    """Whether an object that waits for its deletion has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers") or strategy.is_held(obj):
        return False
    return not meta.get("deletionGracePeriodSeconds")


def _check_preconditions(context: Context, options: DeleteOptions, old: Object) -> None:
    meta = old["metadata"]
    for field, wanted, value in (
        ("UID", options.uid, meta["uid"]),
        ("ResourceVersion", options.resource_version, meta["resourceVersion"]),
    ):
        if wanted and wanted != value:
            why = (
                f"the {field} in the precondition ({wanted}) does not match the {field} in record ({value}). The "
                f"object might have been {_WHAT_HAPPENED[field]}"
            )
            raise conflict(context.kind.group, context.kind.kind, context.name, why)


def _mark_deleted(strategy: Strategy, obj: Object, options: DeleteOptions) -> bool:
    """Do to ``obj`` what a deletion does; return whether it can go at once."""
    meta, again = obj["metadata"], bool(obj["metadata"].get("deletionTimestamp"))
    _set_finalizers(meta, options)
    grace = strategy.grace_period(obj, options)
    if again:
        _shorten(meta, grace or 0)
    else:
        meta["deletionTimestamp"] = rfc3339(datetime.now(UTC) + timedelta(seconds=grace or 0))
        if grace is not None:
            meta["deletionGracePeriodSeconds"] = grace
        if "generation" in meta:
            meta["generation"] += 1
    strategy.mark_deleted(obj, again)
    return is_finished(strategy, obj)


def _set_finalizers(meta: Object, options: DeleteOptions) -> None:
    """Let the garbage collector do first what the propagation policy asks for."""
    finalizers = list(meta.get("finalizers") or ())
    if options.propagation:
        finalizers = [one for one in finalizers if one not in _PROPAGATION.values()]
        if options.propagation in _PROPAGATION:
            finalizers.append(_PROPAGATION[options.propagation])
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)


def _shorten(meta: Object, grace: int) -> None:
    """Shorten the grace period, which counts from when the deletion was asked for."""
    before = meta.get("deletionGracePeriodSeconds", 0)
    if grace < before:
        asked = datetime.fromisoformat(meta["deletionTimestamp"]) - timedelta(seconds=before)
        meta["deletionTimestamp"] = rfc3339(asked + timedelta(seconds=grace))
        meta["deletionGracePeriodSeconds"] = grace
