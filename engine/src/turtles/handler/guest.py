# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running agent knows about the VMIs that it manages."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from turtles.api.configuration import BindingPlugin
from turtles.api.objects import is_deleted
from turtles.api.phases import RUNNING, phase_of
from turtles.domain import decision, paths
from turtles.domain.credentials import Synchronization
from turtles.domain.guest_info import GuestInfo
from turtles.domain.volume_status import Dump
from turtles.handler.cluster import Key
from turtles.handler.launcher import Launcher
from turtles.handler.rate import Bucket
from turtles.handler.state import State, Store

#: How often a VMI may be synchronised at once and each second: its Pod could call for it without end.
_SYNCS, _SYNCS_RATE = 60, 1


@dataclass
class Guest:
    """One VMI; ``state`` is what outlives the agent. Moments are of ``time.monotonic``."""

    key: Key
    uid: str
    store: Store
    state: State
    launcher: Launcher | None = None
    #: uid of the Pod to whose launcher the VMI was delivered.
    delivered: str = ""
    silent_since: float | None = None
    #: Since when it is gone here while it migrates.
    gone_since: float | None = None
    first_attempt: float = field(default_factory=time.monotonic)
    #: How many attempts in a row have failed, when the next one is due, and what the last one said.
    failures: int = 0
    retry_at: float = 0.0
    error: str = ""
    #: When the guest's power button was last pressed.
    pressed: float | None = None
    #: When its agent was last asked, and what it said.
    asked: float | None = None
    info: GuestInfo | None = None
    #: Why a change of the running guest couldn't be made, and what it would have been, by its condition.
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    #: What it was last told about SSH keys and passwords, when it is told again, and how that went.
    credentials_digest: str = ""
    credentials_retry: float | None = None
    credentials: Synchronization | None = None
    #: Checksums of its container disks, by the volume's name, and the volumes whose checksum was asked for.
    checksums: dict[str, int] = field(default_factory=dict)
    summed: set[str] = field(default_factory=set)
    #: Why volumes couldn't be plugged in or unplugged, by their names, and when the next attempt is due.
    volume_failures: dict[str, str] = field(default_factory=dict)
    volume_retry: dict[str, float] = field(default_factory=dict)
    #: The same for network interfaces.
    interface_failures: dict[str, str] = field(default_factory=dict)
    interface_retry: dict[str, float] = field(default_factory=dict)
    #: The network binding plugins there are, by name.
    bindings: Mapping[str, BindingPlugin] = field(default_factory=dict)
    #: Dumps of its memory, by the names of the volumes with the claims.
    dumps: dict[str, Dump] = field(default_factory=dict)
    syncs: Bucket = field(default_factory=lambda: Bucket(_SYNCS, _SYNCS_RATE))
    _saving: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        """Return the VMI's namespace and name, for the log."""
        return "/".join(self.key)

    @property
    def domain_name(self) -> str:
        """libvirt's name of the domain."""
        return paths.domain_name(*self.key)

    def save(self) -> None:
        """Store the state; from any thread."""
        with self._saving:
            self.store.save(self.uid, self.state)

    def has_run(self, vmi: Mapping[str, Any]) -> bool:
        """Say whether the guest is known to have been started."""
        return self.state.started or phase_of(vmi) == RUNNING

    def delay(self, vmi: Mapping[str, Any]) -> float:
        """Return the seconds until the VMI may be synchronised; 0 if it is now, which counts."""
        # An attempt to start that failed made events of its own; they are no reason for the next one
        left = self.retry_at - time.monotonic()
        if left > 0 and not self.state.started and not is_deleted(vmi):
            return left
        return self.syncs.ask()

    def back_off(self) -> float:
        """Return the seconds until the next attempt, after one that failed."""
        pause = decision.retry_pause(self.failures)
        self.failures += 1
        self.retry_at = time.monotonic() + pause
        return pause

    def attempt_succeeded(self) -> None:
        """Record that libvirtd answers and nothing failed."""
        self.failures = 0
        self.silent_since = None

    def close_launcher(self) -> None:
        """Release the launcher."""
        if self.launcher is not None:
            self.launcher.close()
            self.launcher = None

    def reached_memory_limit(self) -> bool:
        """Say whether the launcher, if it still can be asked, has reached its memory limit."""
        return self.launcher is not None and self.launcher.files.reached_memory_limit()


class Guests:
    """The VMIs of this node that the agent manages."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guests: dict[Key, Guest] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._guests)

    def get(self, key: Key) -> Guest | None:
        """Return what is known about a VMI, None if it isn't managed."""
        return self._guests.get(key)

    def all(self) -> list[Guest]:
        """Return all of them."""
        with self._lock:
            return list(self._guests.values())

    def is_stored(self, uid: str) -> bool:
        """Say whether this agent or an earlier one has stored something about the VMI with this uid."""
        return uid in self._store.uids()

    def track(self, key: Key, uid: str) -> Guest:
        """Start to manage a VMI, with what an earlier agent stored about it."""
        guest = Guest(key, uid, self._store, self._store.load(uid))
        with self._lock:
            self._guests[key] = guest
        return guest

    def forget(self, guest: Guest) -> None:
        """Stop managing a VMI."""
        with self._lock:
            self._guests.pop(guest.key, None)
        guest.close_launcher()
        self._store.drop(guest.uid)

    def forget_except(self, uids: set[str]) -> None:
        """Drop what is stored about VMIs other than these; to be called at start."""
        for uid in set(self._store.uids()) - uids:
            self._store.drop(uid)
