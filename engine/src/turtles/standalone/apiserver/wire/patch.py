# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON patch (RFC 6902) and merge patch (RFC 7386), and the media types of all patches."""

import re
from typing import Any

import jsonpatch
import jsonpointer
import msgspec

from turtles.standalone.apiserver.wire.bodies import json_type
from turtles.standalone.apiserver.wire.errors import StatusError, bad_request, quote

JSON, MERGE = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
MAX_OPERATIONS = 10_000


def types(custom: bool) -> list[str]:
    """Return the media types of patches of a built-in or a custom kind."""
    return [JSON, MERGE, *([] if custom else [STRATEGIC]), APPLY]


#: Bytes that a JSON patch's copies may have in all: a few that double each other fill any memory.
MAX_COPIED = 3 * 1024 * 1024


def undecodable(actual: str, wanted: str) -> StatusError:
    """Return 400 for a patch that isn't of the type that its media type says, in the words of Go's decoder."""
    return bad_request(f"error decoding patch: json: cannot unmarshal {actual} into {wanted}")


class Inapplicable(StatusError):
    """A JSON patch that can't be applied to an object; a client doesn't learn why, a webhook's author does."""

    def __init__(self, why: str) -> None:
        super().__init__(422, "Invalid", "the server rejected our request due to an error in our request", {})
        self.why = why


def json_patch(document: Any, patch: Any) -> Any:
    """Return ``document`` with a JSON patch applied.

    :raises StatusError: 400 for what is no patch, 413 for one that is too large, 422 for one that can't be applied.
    """
    if not isinstance(patch, list):
        raise undecodable(json_type(patch), "Go value of type []handlers.jsonPatchOp")
    if len(patch) > MAX_OPERATIONS:
        text = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        raise StatusError(413, "RequestEntityTooLarge", text)
    copied = 0
    # Each operation changes what the one before it left, not the caller's object.
    document = msgspec.json.decode(msgspec.json.encode(document))
    try:
        for one in patch:
            if one is None:
                raise Inapplicable("unexpected kind: null")
            if not isinstance(one, dict):
                raise undecodable(json_type(one), "Go value of type handlers.jsonPatchOp")
            for name in ("op", "path", "from"):
                if one.get(name) is not None and not isinstance(one[name], str):
                    raise undecodable(json_type(one[name]), f"Go struct field jsonPatchOp.{name} of type string")
            operation = _as_standard(document, one)
            if operation.get("op") == "copy":
                copied += len(msgspec.json.encode(jsonpointer.resolve_pointer(document, operation["from"])))
                if copied > MAX_COPIED:
                    text = f"the copies of a JSON patch may not have more than {MAX_COPIED} bytes in all"
                    raise StatusError(413, "RequestEntityTooLarge", text)
            if operation.get("op") == "move":
                moved = jsonpointer.resolve_pointer(document, operation["from"])
                document = _operation(document, {"op": "remove", "path": operation["from"]})
                operation = _as_standard(document, {"op": "add", "path": one.get("path"), "value": moved})
            document = _operation(document, operation)
        return document
    except jsonpatch.JsonPatchTestFailed:
        raise Inapplicable(f"testing value {one['path']} failed: test failed") from None
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError, IndexError):
        text = f"doc is missing path: {quote(str(one.get('path', '')))}: missing value"
        raise Inapplicable(f"{one.get('op')} operation does not apply: {text}") from None


#: What an operation of a JSON patch may have.
_FIELDS = ("op", "path", "from", "value")


def surplus(operations: Any, twice: list[str]) -> list[str]:
    """Return what is reported about fields that operations of a JSON patch don't have, or that they have twice.

    :param twice: paths of the fields that the patch has twice; those within values don't count.
    """
    texts: list[str] = []
    for at, one in enumerate(operations if isinstance(operations, list) else ()):
        for name in one if isinstance(one, dict) else ():
            path = f"[{at}].{name}"
            if name not in _FIELDS:
                texts.append(f'json patch unknown field "{path}"')
            elif path in twice:
                texts.append(f'json patch duplicate field "{path}"')
    return texts


def _as_standard(document: Any, operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with what the server's library, json-patch v4, allows beyond RFC 6902 told in its terms.

    A negative index counts from the end of a list, and copying a field that an object doesn't have copies null.
    """
    result = dict(operation)
    for name in ("path", "from"):
        if isinstance(result.get(name), str) and "/-" in result[name]:
            result[name] = _counted(document, result[name], name == "path" and result.get("op") in _INSERTING)
    source = result.get("from") or ""
    is_member = result.get("op") == "copy" and source != "" and _is_member(document, source)
    if is_member and jsonpointer.resolve_pointer(document, source, None) is None:
        return {"op": "add", "path": result.get("path"), "value": None}
    return result


#: Operations after which a list has an item more, which a negative index counts as well.
_INSERTING = ("add", "copy")


def _counted(document: Any, path: str, inserts: bool) -> str:
    """Return a path with its negative indices counted from the beginning of their lists.

    :raises jsonpatch.InvalidJsonPatch: for one before the beginning.
    """
    parts = path.split("/")
    for at, part in enumerate(parts[1:], 1):
        if isinstance(document, list) and _NEGATIVE.match(part):
            index = len(document) + int(part) + (inserts and at == len(parts) - 1)
            if index < 0:
                raise jsonpatch.InvalidJsonPatch(f"{path} is before the beginning of a list")
            part = parts[at] = str(index)
        document = jsonpointer.resolve_pointer(document, f"/{part}", None) if part != "-" else None
    return "/".join(parts)


_NEGATIVE = re.compile(r"-[1-9][0-9]{0,17}\Z")


def _operation(document: Any, operation: dict[str, Any]) -> Any:
    if operation.get("path") == "" and operation.get("op") == "test":
        return jsonpatch.apply_patch(document, [{"value": None, **operation}], in_place=True)
    if not operation.get("path"):
        if operation.get("op") == "replace" and "path" in operation and isinstance(operation.get("value"), dict | list):
            return operation["value"]
        raise jsonpatch.InvalidJsonPatch("the whole object can't be the target")
    if operation.get("op") in ("add", "replace", "test"):
        # No value is null, and a test for null holds for what isn't there, as the server's library has it.
        operation = {"value": None, **operation}
        if operation["op"] == "test" and operation["value"] is None:
            return _test_null(document, operation["path"])
        if operation["op"] == "replace" and _is_member(document, operation["path"]):
            # The server's library adds what isn't there, other than RFC 6902.
            operation["op"] = "add"
    return jsonpatch.apply_patch(document, [operation], in_place=True)


def _is_member(document: Any, path: str) -> bool:
    """Whether a path leads to a field of an object, whether or not it is there."""
    parent, _ = jsonpointer.JsonPointer(path).to_last(document)
    return isinstance(parent, dict)


def _test_null(document: Any, path: str) -> Any:
    if jsonpointer.resolve_pointer(document, path, None) is not None:
        raise jsonpatch.JsonPatchTestFailed(f"{path} is not null")
    return document


def merge_patch(document: Any, patch: Any) -> Any:
    """Return ``document`` with a merge patch applied; ``document`` may be changed."""
    if not isinstance(patch, dict):
        return patch
    result = document if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merge_patch(result.get(name), value)
        else:
            result[name] = value
    return result
