# SPDX-License-Identifier: GPL-3.0-or-later
"""Structured logs on standard error, one JSON object per line.

Every component calls :func:`setup_logging` once; every log call names its object through ``extra``, by keys that a
LogRecord has not taken itself, as it has ``name``::

    log.info("domain started", extra=about("vmi", vmi, uid=uid))
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

#: Attributes every LogRecord has; whatever else is on a record came in through ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """Formats a record as one JSON object: timestamp, level, component, message, then the keys of ``extra``."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a JSON text without line breaks."""
        entry: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "component": self._component,
            "msg": record.getMessage(),
        }
        entry.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def setup_logging(component: str, level: str = "info") -> None:
    """Send the process's logs to standard error as JSON lines.

    :param component: value of the ``component`` key, such as ``virt-controller``.
    :param level: lowest level written: debug, info, warning or error.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter(component))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def about(kind: str, obj: Mapping[str, Any], **facts: object) -> dict[str, object]:
    """Return the ``extra`` of a log call about an object with a namespace.

    :param kind: the key of its name, such as ``vmi`` or ``pod``. :param facts: what else is to be said.
    """
    metadata = obj["metadata"]
    return {"namespace": metadata["namespace"], kind: metadata["name"], **facts}
