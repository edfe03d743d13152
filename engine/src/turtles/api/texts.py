# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers and JSON in texts that users, guests and other programs wrote.

Python's own functions raise what nobody expects of them: ``int`` for more than 4,300 digits, and for digits such as
``²``, which ``str.isdigit`` takes for one; ``json.loads`` for lists in lists in lists.
"""

from __future__ import annotations

import json
import re
from typing import Any

_DIGITS = re.compile(r"[0-9]+", re.ASCII)
#: Of the largest number of 64 bits.
_LONGEST = 20


def to_number(text: str, most: int = 2**64 - 1) -> int | None:
    """Return the number that a text of decimal digits stands for; None if it is something else, or more than *most*.

    :param most: at most 64 bits.
    """
    if not _DIGITS.fullmatch(text) or len(digits := text.lstrip("0")) > _LONGEST:
        return None
    number = int(digits or "0")
    return number if number <= most else None


def from_json(text: str | bytes) -> Any:
    """Return what a text of JSON says.

    :raises ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
