# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VMIs may go because their VM's status says how they ended."""

import threading

from turtles.api.objects import Object
from turtles.kube.informer import Key, key_of


class NotedEnds:
    """Told by the VM's controller, asked by the VMI's, which then takes both their finalizers off in one write.

    A restart forgets it all: then the VM's controller takes its own off, one write later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uids: dict[Key, str] = {}

    def add(self, vmi: Object) -> None:
        """The VM has taken note of how this VMI ended."""
        with self._lock:
            self._uids[key_of(vmi)] = vmi["metadata"]["uid"]

    def forget(self, key: Key) -> None:
        """There is no VMI of that name any more."""
        with self._lock:
            self._uids.pop(key, None)

    def __contains__(self, vmi: Object) -> bool:
        """Say whether the VM has taken note of how this very VMI ended."""
        with self._lock:
            return bool(self._uids.get(key_of(vmi)) == vmi["metadata"]["uid"])
