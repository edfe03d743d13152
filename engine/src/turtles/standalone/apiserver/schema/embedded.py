# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects within custom resources: what a schema marks with ``x-kubernetes-embedded-resource``.

Rules and messages: k8s.io/apiextensions-apiserver's schema/objectmeta.
"""

from collections.abc import Mapping
from typing import Any

from turtles.standalone.apiserver.schema import metadata
from turtles.standalone.apiserver.schema.decode import decode
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.wire.errors import Cause, StatusError, invalid_value, required

#: What is known of an embedded object's kind: its finalizers need no domain, as those of custom resources.
_SOME_KIND = Kind("", "", "", "", custom=True)


def causes(value: Mapping[str, Any], path: str) -> list[Cause]:
    """Return what an embedded object at ``path`` lacks, or has wrong, of what every object has."""
    wrong = [required(f"{path}.{name}") for name in ("apiVersion", "kind") if name not in value]
    for name in ("apiVersion", "kind"):
        if name not in value:
            continue
        text, where = value[name], f"{path}.{name}"
        if not isinstance(text, str):
            wrong.append(invalid_value(where, text, "must be a string"))
        elif not text:
            wrong.append(invalid_value(where, text, "must not be empty"))
        elif name == "apiVersion" and text.count("/") > 1:
            wrong.append(invalid_value(where, text, f"unexpected GroupVersion string: {text}"))
        elif name == "kind" and not metadata.LABEL_1035.match(text.lower()):
            why = f"may have mixed case, but should otherwise match: {metadata.LABEL_1035_MESSAGE}"
            wrong.append(invalid_value(where, text, why))
    if value.get("metadata") is not None:
        wrong += _metadata(value["metadata"], f"{path}.metadata")
    return wrong


def _metadata(meta: Any, path: str) -> list[Cause]:
    if not isinstance(meta, dict):
        return [invalid_value(path, meta, "must be an object")]
    try:
        decoded = decode({"metadata": meta}, _SOME_KIND)[0]["metadata"]
    except StatusError as error:
        return [invalid_value(path, meta, error.message.partition(": ")[2])]
    # Its name may be anything that can be a part of a path: nothing is known of its kind.
    wrong = metadata.path_causes(decoded.get("name", ""), f"{path}.name")
    for cause in metadata.validate({"metadata": {**decoded, "name": "any-name", "generateName": ""}}, _SOME_KIND):
        wrong.append(Cause(cause.reason, cause.message, path + cause.field.removeprefix("metadata")))
    return wrong
