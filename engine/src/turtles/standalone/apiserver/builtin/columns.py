# SPDX-License-Identifier: GPL-3.0-or-later
"""What columns and cells of tables are made of; the columns are those of Kubernetes' pkg/printers/internalversion."""

from datetime import UTC, datetime
from typing import Any

from turtles.standalone.apiserver.schema.kinds import Column
from turtles.standalone.apiserver.wire.errors import Object

#: A description that begins with this is the documentation of a field: definition (without io.k8s.api.), field.
FIELD = "@"
CREATED = "@meta.v1.ObjectMeta.creationTimestamp"
#: At most so many of a list's items are shown.
_SHOWN = 3


def age(timestamp: Any, now: datetime | None = None) -> str:
    """Return how long ago a time was, as Kubernetes' duration.HumanDuration writes it."""
    try:
        when = datetime.fromisoformat(timestamp)
        seconds = int(((now or datetime.now(UTC)) - when).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    if seconds < -1:
        return "<invalid>"
    return human_duration(max(seconds, 0))


def human_duration(seconds: int) -> str:
    """Return a duration with two or three significant figures, as kubectl shows ages."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = days // 365, days % 365
    return f"{years}y{rest}d" if years < 8 and rest else f"{years}y"


def name_of(obj: Object) -> str:
    """Return an object's name."""
    return str(obj["metadata"].get("name", ""))


def created(obj: Object) -> str:
    """Return an object's age."""
    return age(obj["metadata"].get("creationTimestamp"))


def as_map(value: Any) -> dict[str, Any]:
    """Return a map, empty for what is none."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a list, empty for what is none."""
    return value if isinstance(value, list) else []


def some(items: list[str]) -> str:
    """Return the first of some items and how many more there are."""
    more = f" + {len(items) - _SHOWN} more..." if len(items) > _SHOWN else ""
    return ",".join(items[:_SHOWN]) + more


def conditions_of(obj: Object) -> dict[str, Object]:
    """Return an object's conditions by type."""
    return {str(one.get("type")): one for one in as_list(as_map(obj.get("status")).get("conditions"))}


def phase(obj: Object) -> str:
    """Return an object's phase as kubectl shows it."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(as_map(obj.get("status")).get("phase", ""))


def column(title: str, description: str, type: str = "string", wide: bool = False) -> Column:
    """Return a column; a wide one is shown on demand."""
    return Column(title, type, "name" if title == "Name" else "", description, int(wide))


def wide(title: str, description: str) -> Column:
    """Return a column that is shown on demand."""
    return column(title, description, wide=True)


NAME = column("Name", "@meta.v1.ObjectMeta.name")
AGE = column("Age", CREATED)
#: Columns of kinds without any of their own.
GENERIC = (NAME, column("Created At", CREATED, "date"))
