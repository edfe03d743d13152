# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an object is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UNSUPPORTED: Final = "not supported by this engine"

INVALID: Final = "FieldValueInvalid"
REQUIRED: Final = "FieldValueRequired"
NOT_SUPPORTED: Final = "FieldValueNotSupported"
DUPLICATE: Final = "FieldValueDuplicate"
NOT_FOUND: Final = "FieldValueNotFound"
FORBIDDEN: Final = "FieldValueForbidden"


@dataclass(frozen=True)
class Cause:
    """Why an object is refused: an entry of a Status' `details.causes` (Kubernetes API conventions)."""

    type: str
    message: str
    field: str = ""

    def as_dict(self) -> dict[str, str]:
        """Give the cause as the API has it."""
        entry = {"reason": self.type, "message": self.message}
        if self.field:
            entry["field"] = self.field
        return entry
