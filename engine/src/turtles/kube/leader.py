# SPDX-License-Identifier: GPL-3.0-or-later
"""Leader election with a Lease: only one of several replicas of a component works.

The rules are client-go's: who holds the lease renews it; it is free when its holder gave it up or has not renewed it
for its whole duration, as seen on the candidate's own clock. In addition a holder that comes back under its own
identity continues. Two processes of one identity on one host are kept apart by an abstract socket, which the kernel
frees when its owner dies.
"""

import contextlib
import hashlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from turtles.api.objects import Object
from turtles.kube.client import AlreadyExists, ApiError, Client, Conflict, NotFound
from turtles.kube.resources import LEASE

log = logging.getLogger(__name__)


class Leadership:
    """The right of one of several replicas of a command to work; ``gate`` is set while it has it."""

    def __init__(
        self, client: Client, namespace: str, name: str, identity: str, *, elect: bool, stopped: threading.Event
    ) -> None:
        """Begin to hold the lease, or to wait for it.

        :param identity: who this is; stable over restarts on the same host.
        :param elect: there may be others. If not, this one may always work.
        :param stopped: set when another one has taken the lease.
        """
        self._elector: LeaderElector | None = None
        self.gate = threading.Event()
        #: Another one holds the lease.
        self.lost = threading.Event()

        def on_lost() -> None:
            self.lost.set()
            stopped.set()

        if elect:
            self._elector = LeaderElector(client, namespace, name, identity, on_lost=on_lost)
            self.gate = self._elector.leading
            self._elector.start()
        else:
            self.gate.set()

    def in_touch_since(self) -> float:
        """Return since when the server has answered, in seconds of the monotonic clock."""
        return self._elector.in_touch_since() if self._elector else 0.0

    def stop(self) -> None:
        """Give the lease back, if there is one."""
        if self._elector is not None:
            with contextlib.suppress(Exception):
                self._elector.stop()


class LeaderElector:
    """Holds, or waits for, one Lease.

    ``leading`` is set while this process may work. Its clearing is a pause: the server could not be reached for
    ``renew_deadline`` seconds. Losing the lease to another holder is final and reported to ``on_lost``.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        on_lost: Callable[[], None],
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
    ) -> None:
        """Prepare the election; durations in seconds.

        :param identity: who this is; stable over restarts on the same host.
        :param on_lost: called on the election's thread when another one holds the lease.
        """
        self._client = client
        self._namespace, self._name, self._identity = namespace, name, identity
        self._on_lost = on_lost
        self._lease_duration, self._renew_deadline, self._retry_period = lease_duration, renew_deadline, retry_period
        self.leading = threading.Event()
        #: When the server answered last, and since when it has without a pause of ``renew_deadline``.
        self._answered_at = self._in_touch_since = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lease: Object | None = None
        self._observed: tuple[Any, ...] = ()
        self._observed_at = 0.0
        #: When the request began that renewed the lease last; the server has a later time.
        self._renewed_at = 0.0
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start taking part in elections, on a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch_deadline, name="leader-deadline", daemon=True).start()

    def stop(self, timeout: float = 1.0) -> None:
        """Give up the lease, so that the next holder doesn't have to wait; try for at most ``timeout`` seconds."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout)
        if self.leading.is_set() and self._lease is not None:
            self.leading.clear()
            # On a thread of its own: a server that is away would keep us here.
            release = threading.Thread(target=self._release, args=(self._lease,), daemon=True)
            release.start()
            release.join(timeout)
        if self._socket is not None:
            self._socket.close()

    def in_touch_since(self) -> float:
        """Return since when (monotonic) the server has answered without long pauses, no matter who leads."""
        return self._in_touch_since

    def _run(self) -> None:
        while not self._alone_on_host():
            if self._stopped.wait(0.2):
                return
        while not self._stopped.is_set():
            mine: bool | None
            started = time.monotonic()
            try:
                mine = self._try()
            except ApiError as error:
                log.warning("cannot reach the lease: %s", error, extra={"lease": self._name})
                mine = None
            except Exception:
                log.exception("leader election failed", extra={"lease": self._name})
                mine = None
            if mine is not None:
                self._in_touch()
            if mine:
                self._renewed_at = started
                # An answer that was long under way may be about a lease that is free again
                if not self.leading.is_set() and self._seconds_left() > 0:
                    log.info("leading", extra={"lease": self._name, "identity": self._identity})
                    self.leading.set()
            elif mine is False and self._renewed_at:
                log.error("lost the lease", extra={"lease": self._name})
                self.leading.clear()
                self._on_lost()
                return
            # The server is gone but may be back any moment; nothing happens here until the lease is seen again.
            pause = 0.2 if mine is None and not self.leading.is_set() else self._retry_period
            self._stopped.wait(pause)

    def _in_touch(self) -> None:
        now = time.monotonic()
        if now - self._answered_at > self._renew_deadline:
            self._in_touch_since = now
        self._answered_at = now

    def _seconds_left(self) -> float:
        return self._renewed_at + self._renew_deadline - time.monotonic()

    def _watch_deadline(self) -> None:
        """Pause in time, even while a request to a server that is gone takes longer than the lease lasts."""
        # Whoever begins to lead during a wait has until after its end.
        while not self._stopped.wait(self._seconds_left() if self.leading.is_set() else self._renew_deadline):
            if self.leading.is_set() and self._seconds_left() <= 0:
                log.error("could not renew the lease, pausing", extra={"lease": self._name})
                self.leading.clear()

    def _try(self) -> bool:
        """Acquire or renew the lease; return whether this process holds it."""
        try:
            lease = self._client.get(LEASE, self._namespace, self._name)
        except NotFound:
            try:
                self._lease = self._client.create(
                    LEASE,
                    self._spec(
                        {
                            "apiVersion": "coordination.k8s.io/v1",
                            "kind": "Lease",
                            "metadata": {"namespace": self._namespace, "name": self._name},
                        },
                        self._identity,
                    ),
                )
                return True
            except AlreadyExists:
                return False
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity:
            record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
            if record != self._observed:
                self._observed, self._observed_at = record, time.monotonic()
            if time.monotonic() < self._observed_at + float(spec.get("leaseDurationSeconds") or self._lease_duration):
                return False
        try:
            self._write(lease, holder=self._identity)
        except Conflict:
            return False if holder != self._identity else self._still_mine()
        return True

    def _still_mine(self) -> bool:
        self._lease = self._client.get(LEASE, self._namespace, self._name)
        return bool((self._lease.get("spec") or {}).get("holderIdentity") == self._identity)

    def _write(self, lease: Object, holder: str) -> None:
        self._lease = self._client.replace(LEASE, self._spec(lease, holder))

    def _release(self, lease: Object) -> None:
        with contextlib.suppress(ApiError):
            self._write(lease, holder="")

    def _spec(self, lease: Object, holder: str) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(lease.get("spec") or {})
        if spec.get("holderIdentity") != holder:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if lease.get("spec") else 0)
            spec["acquireTime"] = now
        spec.update(holderIdentity=holder, renewTime=now, leaseDurationSeconds=int(self._lease_duration) or 1)
        return {**lease, "spec": spec}

    def _alone_on_host(self) -> bool:
        digest = hashlib.sha256(f"{self._client.url} {self._namespace}/{self._name} {self._identity}".encode())
        candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            candidate.bind(f"\0turtles-leader-{digest.hexdigest()[:32]}")
        except OSError:
            candidate.close()
            return False
        self._socket = candidate
        return True
