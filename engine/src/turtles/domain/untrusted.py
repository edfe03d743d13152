# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that a guest or its Pod has made up: what is read of them, and how they get into a status."""

import re

#: How long a name may be.
_NAME_LENGTH = 256
#: How many interfaces of a guest are looked at.
INTERFACES = 256
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")


def printable(value: object) -> str:
    """Return a text from a guest for a status: one line that isn't too long."""
    return _UNPRINTABLE.sub(" ", str(value)[:_NAME_LENGTH])
