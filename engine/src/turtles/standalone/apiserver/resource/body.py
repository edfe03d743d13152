# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients send, as an object of the kind that they name."""

import json
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema import decode, metadata
from turtles.standalone.apiserver.wire import bodies
from turtles.standalone.apiserver.wire.errors import (
    Object,
    StatusError,
    Undecodable,
    bad_request,
    invalid,
    invalid_value,
)


def decoded(
    resources: Resources, context: Context, obj: Any, old: Object | None = None, report: bool = False
) -> Object:
    """Return a body as an object of the kind.

    :param old: the object as it is stored, so that what is the same isn't decoded again.
    :param report: whether the client learns of fields that the kind doesn't have.
    :raises StatusError: 400 for what is no object of the kind.
    """
    metadata.check_envelope(obj, context.kind)
    context.reset = managed.is_reset(obj)
    result, unknown = decode.decode(obj, context.kind, old)
    if report:
        context.unknown = unknown
        if not resources.strategy(context.kind).has_schema:
            report_unknown(context)
    return result


def decoded_patch(resources: Resources, context: Context, obj: Object, old: Object) -> Object:
    """Return what a patch left as an object of the kind.

    :param obj: the patched object.
    :param old: the object as it is stored.
    :raises StatusError: 422 for a fault in it, since it is the patch's; 400 if it is another object than was patched.
    """
    context.patched = obj
    try:
        bodies.check_type_meta(obj)
        result = decoded(resources, context, obj, old, report=True)
    except bodies.Unreadable as error:
        raise fault_of_patch(obj, str(error)) from None
    except Undecodable as error:
        raise fault_of_patch(obj, error.why) from None
    check_place(context, result["metadata"])
    return result


def fault_of_patch(obj: Object, message: str) -> StatusError:
    """Return 422 for a patch that left what can't be decoded.

    :param obj: what it left.
    """
    return invalid("", "", "", [invalid_value("patch", json.dumps(obj, separators=(",", ":")), message)])


def report_unknown(context: Context) -> None:
    """Tell the client of fields that the body has twice and that the kind doesn't have.

    :raises StatusError: 400 where the client wants strict validation, 422 for a patch.
    """
    texts = [*context.operations, *_texts(context)]
    if context.field_validation == "Warn":
        warn(context, [*context.repeated, *texts])
    if context.field_validation != "Strict" or not (texts or context.repeated):
        return
    warnings = [yaml_error(context.repeated)] if context.repeated else []
    why = f"strict decoding error: {', '.join([*warnings, *texts])}"
    if context.patched is not None:
        raise fault_of_patch(context.patched, why)
    raise decode.undecodable(context.kind, why)


def report_body(context: Context, body: Any) -> None:
    """Tell the client of a body's fields as :func:`report_unknown` does, where it is an object of the kind at all.

    :raises StatusError: as there.
    """
    if not isinstance(body, dict) or body.get("kind") not in (None, "", context.kind.kind):
        return
    try:
        _, context.unknown = decode.decode(body, context.kind)
    except Undecodable:
        return  # What takes the body says what is wrong with it.
    report_unknown(context)


def _texts(context: Context) -> list[str]:
    """Return what is reported about fields, in the order in which kube-apiserver's decoders come across them."""
    unknown, duplicates, places = context.unknown, context.duplicates, context.places
    if context.kind.custom or context.patched is not None or context.repeated:
        # They have been through a map of Go, which is written in the order of its keys.
        unknown = sorted(unknown)
    if context.kind.custom or context.patched is not None:
        return [f'duplicate field "{path}"' for path in duplicates] + [f'unknown field "{path}"' for path in unknown]
    texts = {path: f'unknown field "{path}"' for path in unknown}
    for path in duplicates:
        # Nobody looks twice at what isn't known.
        if not any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in unknown):
            texts[path] = f'duplicate field "{path}"'
    return [texts[path] for path in sorted(texts, key=lambda path: places.get(path, 0))]


def report_repeated(context: Context) -> None:
    """Tell the client of keys that a configuration it applies has twice in one map.

    :raises StatusError: 400 where the client wants strict validation.
    """
    if context.repeated and context.field_validation == "Strict":
        text = f"error converting YAML to JSON: {yaml_error(context.repeated)}"
        raise bad_request(f"error strict decoding YAML: {text}")
    warn(context, context.repeated)
    context.repeated = []


def yaml_error(lines: list[str]) -> str:
    """Return what go-yaml says of several faults in a text."""
    return "\n  ".join(["yaml: unmarshal errors:", *lines])


def warn(context: Context, texts: list[str]) -> None:
    """Warn a client, of each thing once."""
    context.warnings += [text for text in dict.fromkeys(texts) if text not in context.warnings]


def check_place(context: Context, meta: Object) -> None:
    """Check that an update's object is the one that its path names; give it the namespace that it may leave out.

    :param meta: the object's metadata.
    :raises StatusError: 400 if it isn't.
    """
    name, namespace = meta.get("name"), meta.get("namespace", context.namespace)
    if not name:
        text = f"the name of the object ({context.name} based on URL) was undeterminable: name must be provided"
        raise bad_request(text)
    if name != context.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({context.name})")
    if context.kind.namespaced and namespace != context.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    meta["name"] = name
    if context.kind.namespaced:
        meta["namespace"] = namespace
