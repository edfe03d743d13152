# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Manifests that a task gives inline or in a file."""

from __future__ import annotations

import os

from . import _yaml
from ._errors import KubeError, why
from ._values import described, plain

DEFINITION_ARGUMENTS = {
    "definition": {"type": "raw", "aliases": ["resource_definition", "inline"]},
    "src": {"type": "path"},
}


def load_definitions(definition, src):
    """Return the objects of the options definition and src as a list of dicts, with those of a List one by one.

    :param definition: a dict, a list of dicts, or YAML text.
    :param src: path of a file with YAML text, instead of definition.
    :raises KubeError: naming the document that is wrong.
    """
    if src:
        try:
            with open(os.path.expanduser(src), encoding="utf-8") as stream:
                definition = stream.read()
        except (OSError, UnicodeDecodeError) as exc:
            raise KubeError("src: %s can't be read: %s." % (src, why(exc))) from exc
    origin = origin_of(src)
    objects, pending = [], [definition]
    while pending:
        value = pending.pop(0)
        if value is None:
            continue
        if isinstance(value, str):
            pending[:0] = _parse(value, origin)
        elif isinstance(value, (list, tuple)):
            pending[:0] = list(value)
        elif _is_list(value):
            pending[:0] = value["items"]
        elif isinstance(value, dict):
            objects.append(plain(value))
        else:
            raise KubeError("%s: expected Kubernetes objects, but found %s" % (origin, described(value)))
    return objects


def origin_of(src):
    """Return how messages call what load_definitions() reads."""
    return "src %s" % src if src else "definition"


def _is_list(value):
    return (
        isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list)
    )


def _parse(text, origin):
    documents = _yaml.load_all(text, origin)
    for document in documents:
        if isinstance(document, str):
            raise KubeError("%s: expected Kubernetes objects, but found the text %r" % (origin, document[:80]))
    return documents
