# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Manifests that a task gives inline or in a file."""

from __future__ import annotations

import os

from ._client import KubeError

try:
    import yaml
except ImportError:
    yaml = None  # part of the kubernetes package's requirements; get_client reports what is missing

DEFINITION_ARGUMENTS = {
    "definition": {"type": "raw", "aliases": ["resource_definition", "inline"]},
    "src": {"type": "path"},
}


def load_definitions(definition, src):
    """Return the objects of the options definition and src as a list of dicts. Lists of kind List are opened.

    :param definition: a dict, a list of dicts, or YAML text.
    :param src: path of a file with YAML text, instead of definition.
    :raises KubeError: naming the document that is wrong.
    """
    if src:
        try:
            with open(os.path.expanduser(src), encoding="utf-8") as stream:
                definition = stream.read()
        except (OSError, UnicodeDecodeError) as exc:
            raise KubeError("src: %s can't be read: %s" % (src, exc)) from exc
    origin = "src %s" % src if src else "definition"
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
            objects.append(value)
        else:
            raise KubeError(
                "%s: expected Kubernetes objects, but found a %s: %r" % (origin, type(value).__name__, value)
            )
    return objects


def _is_list(value):
    return (
        isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list)
    )


def _parse(text, origin):
    if yaml is None:
        raise KubeError("Reading YAML text needs the Python package PyYAML on the machine that runs the module.")
    try:
        # In the controller's process the text may be a tagged string, which libyaml's loader doesn't take for one.
        documents = list(yaml.load_all(str(text), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as exc:
        raise KubeError("%s isn't valid YAML: %s" % (origin, exc)) from exc
    for document in documents:
        if isinstance(document, str):
            raise KubeError("%s: expected Kubernetes objects, but found the text %r" % (origin, document[:80]))
    return documents
