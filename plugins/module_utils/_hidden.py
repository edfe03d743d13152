# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fields that are left out of results. Pure functions.

A field is named as in kubernetes.core: names joined by dots. Names that contain dots, and numbers of list
entries, stand in brackets: metadata.annotations[example.com/note], spec.template.spec.volumes[0].cloudInitNoCloud.
"""

from __future__ import annotations

import re

from ._errors import KubeError
from ._values import is_number

HIDDEN_ARGUMENTS = {
    "hidden_fields": {
        "type": "list",
        "elements": "str",
        "default": ["metadata.annotations[kubemacpool.io/transaction-timestamp]", "metadata.managedFields"],
    },
}
_STEP = re.compile(r"(?:^|\.)([^.\[\]]+)|\[([^\[\]]+)\]")


def paths_of(fields):
    """Return each field as the list of names that lead to it.

    :raises KubeError: naming what isn't a field.
    """
    paths = []
    for number, field in enumerate(fields):
        steps = list(_STEP.finditer(field))
        if not steps or "".join(step[0] for step in steps) != field:
            raise KubeError(
                "hidden_fields[%d]: %r isn't a field. Write names joined by dots, and names with dots in brackets, "
                "such as metadata.annotations[example.com/note]." % (number, field)
            )
        paths.append([step[1] or step[2] for step in steps])
    return paths


def hide(obj, paths):
    """Return an object without the fields at the paths; the object itself isn't changed."""
    for path in paths:
        obj = _without(obj, path)
    return obj


def _without(value, path):
    name, rest = path[0], path[1:]
    if isinstance(value, dict) and name in value:
        if rest:
            return {**value, name: _without(value[name], rest)}
        return {key: inner for key, inner in value.items() if key != name}
    if isinstance(value, list) and is_number(name) and int(name) < len(value):
        position = int(name)
        kept = [_without(value[position], rest)] if rest else []
        return [*value[:position], *kept, *value[position + 1 :]]
    return value
