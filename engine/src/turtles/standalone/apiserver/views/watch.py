# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches: which events a client sees, and the stream that brings them."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import HttpVersion11, web

from turtles.standalone.apiserver.schema.selectors import FieldTerm, LabelPredicate, match_fields
from turtles.standalone.apiserver.storage.entries import ADDED, DELETED, MODIFIED, Entry, Event
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.encoding import encode
from turtles.standalone.apiserver.wire.errors import Object, StatusError

#: A client this many events behind is cut off; it resumes from its last resourceVersion.
MAX_BEHIND = 20_000
#: … or this many bytes.
MAX_BYTES = 64 * 1024 * 1024
BOOKMARK_SECONDS = 30.0
#: How long before a watch's time is up its last bookmark comes, in seconds.
FAREWELL_SECONDS = 2.0
DEFAULT_TIMEOUT = 3600.0


@dataclass
class Selection:
    """Which objects of a resource a list or watch is about."""

    namespace: str = ""
    labels: LabelPredicate | None = None
    fields: list[FieldTerm] = field(default_factory=list)
    #: Gives an object as field selectors see it: in the version that the client asked for.
    view: Callable[[Entry], Object] = Entry.object

    def __call__(self, entry: Entry) -> bool:
        """Whether an object is selected."""
        if self.namespace and entry.key.namespace != self.namespace:
            return False
        if self.labels is not None and not self.labels(entry.labels):
            return False
        rest = []
        for term in self.fields:
            path, equal, value = term
            if path == "metadata.name":
                if (entry.key.name == value) != equal:
                    return False
            elif path == "metadata.namespace":
                if (entry.key.namespace == value) != equal:
                    return False
            else:
                rest.append(term)
        return not rest or match_fields(rest, self.view(entry))

    @property
    def looks_inside(self) -> bool:
        """Whether more of an object counts than its name, namespace and labels."""
        return any(path not in ("metadata.name", "metadata.namespace") for path, _, _ in self.fields)

    @property
    def name(self) -> str:
        """The only name that can be selected, '' when there may be others."""
        return next((value for path, equal, value in self.fields if path == "metadata.name" and equal), "")


@dataclass(frozen=True)
class Form:
    """How objects are shown: ``name`` is the same for clients that get the same bytes, '' if they aren't shared."""

    name: str
    encode: Callable[[Entry], bytes]
    #: Encodes a bookmark: (resourceVersion, annotations).
    bookmark: Callable[[int, dict[str, str]], bytes]
    #: Must be awaited before objects are encoded; None where there is nothing to wait for.
    prepare: Callable[[list[Entry]], Awaitable[None]] | None = None


def visible(event: Event, selection: Selection) -> tuple[str, Entry] | None:
    """Return type and object of an event as a watcher with a selection sees it; None when it doesn't."""
    entry, previous = event.entry, event.previous
    now = event.type != DELETED and selection(entry)
    if event.type == DELETED:
        return (DELETED, entry) if selection(previous or entry) else None
    before = previous is not None and selection(previous)
    if now:
        return (MODIFIED if before else ADDED, entry)
    if not before or previous is None:
        return None
    # It leaves the selection: the client is shown what it knows, in the version of the change.
    obj = previous.object()
    obj["metadata"]["resourceVersion"] = str(entry.version)
    return (DELETED, Entry(entry.key, entry.version, encode(obj)))


class Watcher:
    """One client's watch: collects events on the loop, gives frames."""

    def __init__(self, store: Store, resource: str, selection: Selection, form: Form) -> None:
        self._store, self._selection, self._form = store, selection, form
        self._table = store.table(resource)
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        #: Takes frames while only :meth:`frames` waits; gives False when it can't just now.
        self._direct: Callable[[bytes], bool] | None = None
        self._waiting = False
        self.overflown = False

    def connect(self, direct: Callable[[bytes], bool]) -> None:
        """Hand frames to ``direct`` as events happen, whenever :meth:`frames` waits and nothing is queued.

        That spares waking a task for each event and watcher. What ``direct`` doesn't take is queued.
        """
        if self._form.prepare is None:
            self._direct = direct

    def start(self, events: Iterable[Event] = ()) -> None:
        """Begin with ``events`` (a history) and go on with what comes."""
        self._events.extend(events)
        self._bytes = sum(len(event.entry.raw) for event in self._events)
        if self._events:
            self._wake.set()
        self._table.listeners.add(self._listen)

    def stop(self) -> None:
        """Hear nothing more."""
        self._table.listeners.discard(self._listen)

    def _listen(self, event: Event) -> None:
        if self._waiting and not self._events and self._direct is not None and self._sent(event, self._direct):
            return
        if len(self._events) >= MAX_BEHIND or self._bytes > MAX_BYTES:
            self.overflown = True
            self._events.clear()
            self.stop()
        else:
            self._events.append(event)
            self._bytes += len(event.entry.raw)
        self._wake.set()

    def _sent(self, event: Event, direct: Callable[[bytes], bool]) -> bool:
        try:
            seen = visible(event, self._selection)
            return seen is None or direct(self._frame(event, *seen))
        except Exception:
            # Queued, it fails where it concerns this client only.
            return False

    async def frames(self, seconds: float) -> bytes:
        """Wait for queued events and return their frames; empty when none came within that many ``seconds``."""
        if not self._events:
            self._wake.clear()
            self._waiting = True
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return b""
            finally:
                self._waiting = False
        events = [self._events.popleft() for _ in range(min(len(self._events), 1000))]
        self._bytes -= sum(len(event.entry.raw) for event in events)
        if self._form.prepare is not None and self._selection.looks_inside:
            states = (entry for event in events for entry in (event.entry, event.previous))
            await self._form.prepare([entry for entry in states if entry is not None])
        pending: list[tuple[Event, str, Entry]] = []
        for event in events:
            seen = visible(event, self._selection)
            if seen is not None:
                pending.append((event, *seen))
        if self._form.prepare is not None:
            await self._form.prepare([entry for _, _, entry in pending])
        return b"".join(self._frame(*one) for one in pending)

    def _frame(self, event: Event, kind: str, entry: Entry) -> bytes:
        if not self._form.name:
            return make_frame(kind, self._form.encode(entry))
        # What leaves a selection is shown as it was: that is another frame than the deletion's.
        key = (kind, self._form.name) if entry is event.entry else ("left", self._form.name)
        frame = event.encoded.get(key)
        if frame is None:
            frame = event.encoded[key] = make_frame(kind, self._form.encode(entry))
        return frame

    @property
    def idle(self) -> bool:
        """Whether everything that happened so far has been given out."""
        return not self._events


def make_frame(kind: str, raw: bytes) -> bytes:
    """Return a line of a watch's stream."""
    return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"


def _direct(transport: asyncio.Transport) -> Callable[[bytes], bool]:
    """Return what writes a frame as a chunk of an HTTP answer, if the client has read what it was sent before."""

    def write(frame: bytes) -> bool:
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        transport.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        return True

    return write


@dataclass
class WatchOptions:
    """What a client asked for."""

    timeout: float = DEFAULT_TIMEOUT
    bookmarks: bool = False
    initial_events: bool = False


def _next_bookmark(now: float, deadline: float) -> float:
    """Return when the next bookmark is due; the last one comes right before the end.

    So a client's next watch begins where this one ended.
    """
    last = deadline - FAREWELL_SECONDS
    return min(now + BOOKMARK_SECONDS, last) if now < last else math.inf


async def stream(
    request: web.BaseRequest,
    store: Store,
    watcher: Watcher,
    initial: Iterable[Entry],
    form: Form,
    options: WatchOptions,
    version: int,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Send a watch to its client until it goes, the time is up, or the server ends.

    :param initial: objects to send as ADDED first.
    :param version: store version of the initial state.
    :param headers: of the answer, beside those that all watches have.
    """
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private", **(headers or {})}
    )
    chunked = request.version >= HttpVersion11
    if chunked:
        response.enable_chunked_encoding()
    deadline = time.monotonic() + options.timeout
    try:
        await response.prepare(request)
        if form.prepare is not None:
            initial = list(initial)
            await form.prepare(initial)
        first = [make_frame(ADDED, form.encode(entry)) for entry in initial]
        if options.initial_events:
            note = {"k8s.io/initial-events-end": "true"}
            first.append(make_frame("BOOKMARK", form.bookmark(version, note)))
        if first:
            await response.write(b"".join(first))
        if chunked and request.transport is not None:
            watcher.connect(_direct(request.transport))
        next_bookmark = min(time.monotonic() + BOOKMARK_SECONDS, deadline - FAREWELL_SECONDS)
        # A client that has gone is noticed by writing to it; where there is nothing to write, by looking now and then.
        while (now := time.monotonic()) < deadline and request.transport is not None:
            until = min(deadline, next_bookmark if options.bookmarks else now + BOOKMARK_SECONDS)
            current = store.version if watcher.idle else 0
            frames = await watcher.frames(max(0.0, until - now))
            if frames:
                await response.write(frames)
            if watcher.overflown:
                error = StatusError(410, "Expired", "too old resource version: the watch fell behind")
                await response.write(make_frame("ERROR", encode(error.status())))
                break
            if options.bookmarks and time.monotonic() >= next_bookmark:
                next_bookmark = _next_bookmark(time.monotonic(), deadline)
                current = store.version if watcher.idle else current
                if current:
                    await response.write(make_frame("BOOKMARK", form.bookmark(current, {})))
        if options.bookmarks and watcher.idle and not watcher.overflown:
            await response.write(make_frame("BOOKMARK", form.bookmark(store.version, {})))
        await response.write_eof()
    except StatusError as error:
        # The stream has begun: errors are reported in it.
        with contextlib.suppress(ConnectionError):
            await response.write(make_frame("ERROR", encode(error.status())))
            await response.write_eof()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        watcher.stop()
    return response
