# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""YAML as Kubernetes reads it: a key that is given twice is an error, and dates are text."""

from __future__ import annotations

from ._errors import KubeError

try:
    import yaml
except ImportError:
    yaml = None  # part of the kubernetes package's requirements; _library() reports what is missing

_MERGE = "tag:yaml.org,2002:merge"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class DuplicateKey(Exception):
    """A mapping has a key twice."""


def load_all(text, origin):
    """Return the documents of YAML text, None for an empty one.

    :param origin: what users call the text, for messages.
    :raises KubeError: it isn't YAML, or a mapping has a key twice; names the line.
    """
    library = _library()
    try:
        # In the controller's process the text may be a tagged string, which libyaml's loader doesn't take for one.
        return list(library.load_all(str(text), Loader=_LOADER))
    except DuplicateKey as exc:
        raise KubeError("%s: %s" % (origin, exc)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise KubeError("%s isn't valid YAML: %s" % (origin, exc)) from None


def load(text, origin):
    """Return the only document of YAML text; None where there is none. See load_all()."""
    documents = load_all(text, origin)
    if len(documents) > 1:
        raise KubeError("%s: must be one YAML document, but has %d" % (origin, len(documents)))
    return documents[0] if documents else None


def dump(value):
    """Return plain data as YAML text, always in the same order."""
    return _library().safe_dump(value, sort_keys=True, default_flow_style=False, width=1000)


def _library():
    if yaml is None:
        raise KubeError("YAML text needs the Python package PyYAML on the machine that runs the module.")
    return yaml


def _refuse_duplicates(loader, root):
    """Look through a document before it is constructed: merge keys then still stand for themselves.

    :raises DuplicateKey: naming the key and both lines.
    """
    seen, pending = set(), [root]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            _refuse_duplicates_of(loader, node)
            pending.extend(inner for pair in node.value for inner in pair)


def _refuse_duplicates_of(loader, mapping):
    lines = {}
    for key, _dummy in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        # Keys that differ in Python but not in JSON count as well: 1 and "1".
        names = {key.value, loader.construct_object(key)}
        line = key.start_mark.line + 1
        for name in names:
            if name in lines:
                raise DuplicateKey(
                    "line %d: the key %s is given twice in one mapping, first in line %d. Remove one of the two."
                    % (line, key.value, lines[name])
                )
        lines.update(dict.fromkeys(names, line))


def _make_loader():
    """Return the loader; libyaml's parser where PyYAML has it, since it is ten times as fast."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        """A safe loader that refuses duplicate keys and takes dates for text."""

        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_document(self, node):
            """Construct a document that has no duplicate keys."""
            _refuse_duplicates(self, node)
            return super().construct_document(node)

    return Loader


_LOADER = _make_loader() if yaml is not None else None
