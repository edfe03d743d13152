# SPDX-License-Identifier: GPL-3.0-or-later
"""Patch: JSON patches, merge patches and strategic merge patches; apply.py has server-side apply."""

import copy
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import strategic
from turtles.standalone.apiserver.resource.body import fault_of_patch
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.schema.types import ANY, Type, of_kind
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.wire import bodies, patch
from turtles.standalone.apiserver.wire.errors import Object, bad_request


async def patch_object(resources: Resources, context: Context, content_type: str, body: Any) -> Entry:
    """Apply a patch to an object.

    :param content_type: one of the three types of patches; server-side apply is another matter.
    :param body: the patch, decoded.
    :raises StatusError: 415 for a strategic merge patch of a custom resource, 400 for what is no patch of the type, 422
        for one that can't be applied or leaves what is no object, and as for :func:`modify`.
    """
    if content_type == patch.STRATEGIC and not resources.strategy(context.kind).is_merged_by_type:
        raise bodies.unknown_format(patch.types(custom=True))
    if body is None and content_type != patch.MERGE:
        # Go's decoder makes the empty patch of it.
        body = [] if content_type == patch.JSON else {}
    if content_type == patch.STRATEGIC and not isinstance(body, dict):
        text = f"json: cannot unmarshal {bodies.json_type(body)} into Go value of type map[string]interface {{}}"
        raise bad_request(text)

    async def patched(old: Object) -> Object:
        return patch_document(content_type, old, body, of_kind(context.kind))

    meta = body.get("metadata") if isinstance(body, dict) else None
    based = isinstance(meta, dict) and bool(meta.get("resourceVersion"))
    return await modify(resources, context, patched, based, from_patch=True)


def patch_document(content_type: str, document: Object, body: Any, of: Type = ANY) -> Object:
    """Return a document with a patch of one of the three types applied.

    :param of: the document's type, for strategic merge patches.
    :raises StatusError: 400 for what is no patch of the type, 422 if it leaves what is no object.
    :raises Inapplicable: an operation of a JSON patch doesn't fit the document.
    """
    if content_type == patch.JSON:
        result = patch.json_patch(document, body)
    elif content_type == patch.MERGE:
        if body is None:
            raise bad_request("Invalid JSON Patch")
        if not isinstance(body, dict):
            raise patch.undecodable(bodies.json_type(body), "Go value of type map[string]interface {}")
        result = patch.merge_patch(document, body)
    else:
        envelope = {name: document[name] for name in ("apiVersion", "kind")}
        result = strategic.merge(document, copy.deepcopy(body), of)
        if all(isinstance(result.get(name), str) for name in envelope):
            # The type that is merged into is known, and stays.
            result.update(envelope)
    try:
        bodies.check_type_meta(result)
    except bodies.Unreadable as error:
        raise fault_of_patch(result, str(error)) from None
    return result or {}
