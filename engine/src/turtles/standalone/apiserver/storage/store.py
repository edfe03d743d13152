# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects, their history, and the disk under them.

On disk there is one table, a log: a row a write, named by its resourceVersion (see database.py). The newest row of a
key is the object; a compaction drops rows that something newer replaced and that are out of the watch window. So
every write puts an object's bytes on disk once, and watches resume across a restart without a gap.

One thread writes. It takes whatever has queued up into one transaction, so concurrent writes share an fsync, and
only after it do readers and watchers see them: an acknowledged or observed write survives kill -9 and power loss.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from turtles.standalone.apiserver.storage.database import Database, Row
from turtles.standalone.apiserver.storage.encryption import Encryption
from turtles.standalone.apiserver.storage.entries import ADDED, DELETED, MODIFIED, Entry, Event, Key, Table
from turtles.standalone.apiserver.wire.encoding import encode
from turtles.standalone.apiserver.wire.errors import Object, StatusError

log = logging.getLogger(__name__)

#: Watches may resume from writes younger than this, in seconds, …
HISTORY_SECONDS = 600.0
#: … and not more than this many of them, …
HISTORY_EVENTS = 50_000
#: … with this many bytes.
HISTORY_BYTES = 96 * 1024 * 1024
#: Largest object, in bytes: patches may not grow one without end.
MAX_OBJECT = 3 * 1024 * 1024
#: Writes that share a transaction at most.
BATCH = 512


class Stale(Exception):
    """A write was based on a state that is no longer the newest one."""


class _Write(NamedTuple):
    kind: str
    entry: Entry
    done: asyncio.Future[Entry]


class _Purge(NamedTuple):
    versions: list[int]
    compacted: int


class Store:
    """The objects of the API. Everything but the writer thread runs on one event loop."""

    def __init__(
        self, path: Path, encryption: Encryption | None = None, history_seconds: float = HISTORY_SECONDS
    ) -> None:
        """Open a database and read all objects.

        :param history_seconds: how long watches may resume from a write.
        :raises DatabaseError, EncryptionError: when that isn't possible.
        """
        self._history_seconds = history_seconds
        # The time of day when the process started and what passed since: a clock that is set doesn't end watches.
        self._opened = time.time() - time.monotonic()
        self._tables: dict[str, Table] = {}
        self._pending: dict[Key, asyncio.Future[Entry]] = {}
        self._queue: queue.SimpleQueue[_Write | _Purge | None] = queue.SimpleQueue()
        self._observers: list[Callable[[Event], None]] = []
        #: (version of a write, version of the row that it made superfluous), oldest first.
        self._replaced: deque[tuple[int, int]] = deque()
        self._issued = 0
        self.version = 0
        self.compacted = 0
        self._thread: threading.Thread | None = None
        #: What could not be purged yet.
        self._unpurged: list[_Purge] = []
        #: Every table's history, oldest first.
        self._history: deque[Event] = deque()
        self._history_bytes = 0
        self._database = Database(path, encryption)
        try:
            self._load()
        except BaseException:
            self._database.close()
            raise

    def _load(self) -> None:
        newest = self.compacted = self._database.compacted
        opened = self._now()
        for row in self._database.rows():
            entry = Entry(Key(row.resource, row.namespace, row.name), row.version, row.value)
            try:
                _ = entry.metadata
            except msgspec.MsgspecError as error:
                raise self._database.damaged(row, error) from None
            self._take(row.type, entry, min(row.time, opened))
            newest = row.version
        rewritten = self._database.reencrypt()
        if rewritten:
            log.info("rewritten as the encryption configuration says", extra={"rows": rewritten})
        # A version that a client has seen must never get another meaning.
        self._issued = self.version = max(newest, self.compacted, 1)

    def _now(self) -> float:
        """Return the time by which the history's age is judged: Unix time of a clock that nobody sets."""
        return self._opened + time.monotonic()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the writer thread, which reports to ``loop``."""
        self._thread = threading.Thread(target=self._write_loop, args=(loop,), name="store-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is queued, then close the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._database.close()

    def size(self) -> int:
        """Return the bytes on disk."""
        return self._database.size()

    def table(self, resource: str) -> Table:
        """Return the table of a resource named ``group/plural``."""
        table = self._tables.get(resource)
        if table is None:
            table = self._tables[resource] = Table()
        return table

    def observe(self, observer: Callable[[Event], None]) -> None:
        """Call ``observer`` on the loop for every write, before watchers see it."""
        self._observers.append(observer)

    def resources(self) -> list[str]:
        """Return the resources that have objects."""
        return [name for name, table in self._tables.items() if table.entries]

    def get(self, key: Key) -> Entry | None:
        """Return the object's committed state."""
        table = self._tables.get(key.resource)
        return table.entries.get(key) if table else None

    def read(self, resource: str, namespace: str, name: str) -> Object | None:
        """Return an object, the caller's own; None when it doesn't exist."""
        entry = self.get(Key(resource, namespace, name))
        return entry.object() if entry is not None else None

    def entries(self, resource: str, namespace: str = "", after: Key | None = None) -> Iterator[Entry]:
        """Yield the objects of a resource in order of their keys.

        :param namespace: only this namespace's; '' for all.
        :param after: only those behind this key.
        """
        table = self.table(resource)
        keys = table.keys
        first = after if after is not None else Key(resource, namespace, "")
        position = bisect_left(keys, first)
        for key in keys[position:]:
            if key == after:
                continue
            if namespace and key.namespace != namespace:
                break
            yield table.entries[key]

    async def settled(self, key: Key) -> Entry | None:
        """Wait for writes of a key in flight, then return its state."""
        while (pending := self._pending.get(key)) is not None:
            await asyncio.wait([pending])
        return self.get(key)

    async def put(self, key: Key, obj: Object, expected: int) -> Entry:
        """Store an object; return when it is on disk.

        :param obj: gets ``metadata.resourceVersion``.
        :param expected: version of the state that this replaces, 0 for none.
        :raises Stale: when the key has another state by now.
        :raises StatusError: 413 for an object that is too large.
        """
        self._check(key, expected)
        version = self._next()
        obj["metadata"]["resourceVersion"] = str(version)
        raw = encode(obj)
        if len(raw) > MAX_OBJECT:
            text = f"Request entity too large: the object would have {len(raw)} bytes, limit is {MAX_OBJECT}"
            raise StatusError(413, "RequestEntityTooLarge", text)
        return await self._submit(MODIFIED if expected else ADDED, Entry(key, version, raw))

    async def delete(self, key: Key, obj: Object, expected: int) -> Entry:
        """Remove an object, whose last state for watchers is ``obj``; return when it is gone from disk."""
        self._check(key, expected)
        version = self._next()
        obj["metadata"]["resourceVersion"] = str(version)
        return await self._submit(DELETED, Entry(key, version, encode(obj)))

    def _check(self, key: Key, expected: int) -> None:
        entry = self.get(key)
        if key in self._pending or (entry.version if entry else 0) != expected:
            raise Stale

    def _next(self) -> int:
        self._issued += 1
        return self._issued

    async def _submit(self, kind: str, entry: Entry) -> Entry:
        done: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._pending[entry.key] = done
        self._queue.put(_Write(kind, entry, done))
        # A client that goes away must not take the write's completion with it.
        return await asyncio.shield(done)

    def _write_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        running = True
        while running:
            batch: list[_Write | _Purge] = []
            item = self._queue.get()
            while True:
                if item is None:
                    running = False
                    break
                batch.append(item)
                if len(batch) >= BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                error = self._commit(batch)
                writes = [one for one in batch if isinstance(one, _Write)]
                try:
                    loop.call_soon_threadsafe(self._committed, writes, error)
                except RuntimeError:  # the loop has ended; the data is safe, and no one waits for it
                    return

    def _commit(self, batch: list[_Write | _Purge]) -> Exception | None:
        now = self._now()
        rows = [
            Row(one.entry.version, one.kind, *one.entry.key, now, one.entry.raw)
            for one in batch
            if isinstance(one, _Write)
        ]
        purges = [*self._unpurged, *(one for one in batch if isinstance(one, _Purge))]
        purged = [version for one in purges for version in one.versions]
        try:
            self._database.write(rows, purged, max((one.compacted for one in purges), default=0))
        except sqlite3.Error as error:
            log.error("a write failed", extra={"reason": str(error), "objects": len(rows)})
            self._unpurged = purges
            return error
        self._unpurged = []
        return None

    def _committed(self, writes: list[_Write], error: Exception | None) -> None:
        now = self._now()
        for kind, entry, done in writes:
            self._pending.pop(entry.key, None)
            if error is not None:
                if not done.cancelled():
                    done.set_exception(storage_error(error))
                continue
            event = self._take(kind, entry, now)
            for observer in self._observers:
                observer(event)
            for listener in list(self.table(entry.key.resource).listeners):
                listener(event)
            if not done.cancelled():
                done.set_result(entry)
        oldest = now - 1.1 * self._history_seconds
        if self._history and (
            self._history[0].time < oldest
            or len(self._history) > HISTORY_EVENTS * 1.1
            or self._history_bytes > HISTORY_BYTES * 1.1
        ):
            self.compact(now)

    def _take(self, kind: str, entry: Entry, when: float) -> Event:
        table = self.table(entry.key.resource)
        previous = table.apply(kind, entry)
        event = Event(kind, entry, previous, when)
        self.version = entry.version
        if entry.version > self.compacted:
            table.history.append(event)
            self._history.append(event)
            self._history_bytes += len(entry.raw)
        if previous is not None:
            self._replaced.append((entry.version, previous.version))
        if kind == DELETED:
            self._replaced.append((entry.version, entry.version))
        return event

    def since(self, resource: str, version: int) -> list[Event]:
        """Return the writes of a resource after ``version``, oldest first.

        :raises LookupError: when the history doesn't reach back that far.
        """
        if version < self.compacted:
            raise LookupError(version)
        events: list[Event] = []
        for event in reversed(self.table(resource).history):
            if event.entry.version <= version:
                break
            events.append(event)
        events.reverse()
        return events

    def compact(self, now: float | None = None) -> None:
        """Forget history that is older or larger than the watch window, on disk too."""
        horizon = (self._now() if now is None else now) - self._history_seconds
        history, compacted = self._history, self.compacted
        while history and (
            history[0].time < horizon or len(history) > HISTORY_EVENTS or self._history_bytes > HISTORY_BYTES
        ):
            event = history.popleft()
            compacted = event.entry.version
            self._history_bytes -= len(event.entry.raw)
            self.table(event.entry.key.resource).history.popleft()
        if compacted == self.compacted:
            return
        self.compacted = compacted
        # A row that a write in the window replaced stays: watchers with a selector need the state before the write.
        purged = []
        while self._replaced and self._replaced[0][0] <= compacted:
            purged.append(self._replaced.popleft()[1])
        self._queue.put(_Purge(purged, compacted))


def storage_error(error: Exception) -> StatusError:
    """Return the error that a client gets for a failed write."""
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        message = "the disk of the API server is full: nothing was stored; free some space and try again"
        return StatusError(507, "InsufficientStorage", message)
    return StatusError(500, "InternalError", f"Internal error occurred: storing the object failed: {error}")
