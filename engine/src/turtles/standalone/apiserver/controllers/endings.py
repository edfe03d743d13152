# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of what contains others: namespaces with all that is in them, definitions with their custom resources."""

from collections.abc import Iterable, Sequence

from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import crd
from turtles.standalone.apiserver.controllers.internal import delete_entry, drop_finalizer, stored_kind
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.status import is_true, set_condition
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.wire.errors import Object, StatusError


async def end_namespace(resources: Resources, entry: Entry, kind: Kind) -> None:
    """Delete what is in a namespace that ends; let it go once nothing is left.

    :raises StatusError: something in it can't be deleted; try again.
    """
    store, name = resources.store, entry.key.name
    kinds = {resource: stored_kind(resources, resource) for resource in store.resources()}
    inside = {resource: of for resource, of in kinds.items() if of is not None and of.namespaced}
    failures: list[StatusError] = []
    for resource, of in inside.items():
        # A Pod's node ends it; everything else goes at once or waits for its finalizers.
        failures += await _delete_all(resources, list(store.entries(resource, name)), of)
    left = [inner for resource in inside for inner in store.entries(resource, name)]
    if left:
        await _report_what_remains(resources, entry, kind, left, failures)
        if failures:
            raise StatusError(500, "InternalError", failures[0].message)
        return  # the deletion of what is left brings it up again

    async def emptied(obj: Object) -> Object:
        obj["spec"]["finalizers"] = []
        return obj

    await modify(resources, Context(kind, INTERNAL, "", name, "finalize"), emptied)


async def end_definition(resources: Resources, entry: Entry, kind: Kind) -> None:
    """Delete the custom resources of a definition that ends; let it go once none is left.

    :raises StatusError: one can't be deleted; try again.
    """
    store, spec = resources.store, entry.object()["spec"]
    resource = f"{spec['group']}/{spec['names']['plural']}"
    of = stored_kind(resources, resource)
    if of is not None:
        left = list(store.entries(resource))
        if left and not is_true(entry.object(), "Terminating"):
            text = "CustomResource deletion is in progress"

            async def terminating(obj: Object) -> Object:
                set_condition(obj, "Terminating", "True", "InstanceDeletionInProgress", text)
                return obj

            await modify(resources, Context(kind, INTERNAL, "", entry.key.name, "status"), terminating)
        failures = await _delete_all(resources, left, of)
        if failures:
            raise failures[-1]
        if next(iter(store.entries(resource)), None) is not None:
            return  # the deletion of what is left brings it up again
    await drop_finalizer(resources, entry, kind, crd.CLEANUP)


async def _delete_all(resources: Resources, entries: Iterable[Entry], kind: Kind) -> list[StatusError]:
    """Delete objects of a kind; return why some could not be."""
    failures = []
    for entry in entries:
        try:
            await delete_entry(resources, entry, kind)
        except StatusError as error:
            if error.code != 404:
                failures.append(error)
    return failures


async def _report_what_remains(
    resources: Resources, entry: Entry, kind: Kind, left: Sequence[Entry], failures: Sequence[StatusError]
) -> None:
    """Say in the status of a namespace what it waits for, as Kubernetes' namespace controller does."""
    counts: dict[str, int] = {}
    waits: dict[str, int] = {}
    for inner in left:
        group, _, plural = inner.key.resource.partition("/")
        counts[f"{plural}.{group}"] = counts.get(f"{plural}.{group}", 0) + 1
        for finalizer in inner.metadata.finalizers or ():
            waits[finalizer] = waits.get(finalizer, 0) + 1
    conditions = namespace_conditions(counts, waits, [failure.message for failure in failures])

    async def changed(obj: Object) -> Object:
        for one in conditions:
            set_condition(obj, one["type"], one["status"], one["reason"], one["message"])
        return obj

    await modify(resources, Context(kind, INTERNAL, "", entry.key.name, "status"), changed)


def namespace_conditions(counts: dict[str, int], waits: dict[str, int], failures: Sequence[str] = ()) -> list[Object]:
    """Return the conditions of a namespace that ends.

    :param counts: how many objects of which resource (``plural.group``) are left.
    :param waits: how many of them have which finalizer.
    :param failures: why objects could not be deleted.
    """
    failed = f"Failed to delete all resource types, {len(failures)} remaining: {', '.join(sorted(failures))}"
    left = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(counts.items()))
    held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(waits.items()))
    rows = [
        ("DeletionDiscoveryFailure", "", "ResourcesDiscovered", "All resources successfully discovered"),
        ("DeletionGroupVersionParsingFailure", "", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (
            "DeletionContentFailure",
            failures,
            "ContentDeletionFailed" if failures else "ContentDeleted",
            failed if failures else "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "ContentRemaining",
            left,
            "SomeResourcesRemain" if left else "ContentRemoved",
            f"Some resources are remaining: {left}" if left else "All content successfully removed",
        ),
        (
            "FinalizersRemaining",
            held,
            "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            f"Some content in the namespace has finalizers remaining: {held}"
            if held
            else "All content-preserving finalizers finished",
        ),
    ]
    return [
        {"type": f"Namespace{name}", "status": "True" if is_so else "False", "reason": reason, "message": message}
        for name, is_so, reason, message in rows
    ]
