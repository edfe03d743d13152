# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys that users have written, and those there are. Pure functions."""

from __future__ import annotations

import difflib

from ._errors import KubeError
from ._values import described


def check_keys(place, value, known, remedies=None):
    """Raise KubeError if value isn't a mapping, or has keys that aren't known; it names the nearest one.

    :param place: where value is, such as "vms[2]"; "" at the top.
    :param remedies: known mistake -> what to do instead.
    """
    if not isinstance(value, dict):
        raise KubeError("%s: must be a mapping, but is %s." % (place or "the content", described(value)))
    for key in value:
        if key in known:
            continue
        where = "%s.%s" % (place, key) if place else str(key)
        if remedies and key in remedies:
            raise KubeError("%s: %s" % (where, remedies[key]))
        near = difflib.get_close_matches(str(key), known, 1)
        remedy = "Did you mean %s?" % near[0] if near else "The options are %s." % ", ".join(sorted(known))
        raise KubeError("%s: unknown key. %s" % (where, remedy))
