# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options labels and annotations, and other mappings from text to text. Pure functions."""

from __future__ import annotations

from ._errors import KubeError
from ._values import type_name

OPTIONS = ("labels", "annotations")
ARGUMENTS = {option: {"type": "dict"} for option in OPTIONS}


def texts(option, mapping):
    """Return a mapping with string values, as labels must be; None values stay, they remove a key.

    :raises KubeError: naming what isn't text.
    """
    if mapping is None:
        return None
    result = {}
    for name, value in mapping.items():
        if isinstance(value, (dict, list)):
            raise KubeError("%s.%s: must be a string, but is a %s" % (option, name, type_name(value)))
        if isinstance(value, bool):
            value = str(value).lower()
        result[str(name)] = None if value is None else str(value)
    return result


def texts_of(params, option):
    """Return the mapping from text to text that an option declares, or None; see texts()."""
    return texts(option, params.get(option))


def declared(params):
    """Return the metadata that the options labels and annotations declare."""
    given = {option: texts_of(params, option) for option in OPTIONS}
    return {option: value for option, value in given.items() if value is not None}
