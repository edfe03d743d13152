# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node agent needs from Kubernetes to manage VMIs."""

from collections.abc import Mapping
from typing import Any, Protocol

from turtles.api.objects import Object

#: Namespace and name of a VMI.
Key = tuple[str, str]


class Cluster(Protocol):
    """The VMIs of this node, as the API server has them."""

    def get(self, key: Key) -> Object | None:
        """Return the VMI; it is not modified."""

    def patch(
        self, vmi: Mapping[str, Any], status: Mapping[str, Any], *, labels: Mapping[str, str] | None = None
    ) -> None:
        """Merge *status* (None deletes a key) into the VMI's status if it is still the one that was read.

        :param labels: that the VMI gets along with it.
        """

    def event(self, vmi: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        """Record an event."""

    def enqueue(self, key: Key) -> None:
        """Synchronise the VMI soon; may be called from any thread."""
