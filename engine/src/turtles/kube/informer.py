# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache of one resource type, kept by list and watch.

``kubernetes.informer.SharedInformer`` is not used: it cannot tell when it is synchronised, waits five seconds after a
failed list, spins without a pause while the server is down, and its watch never times out. This one reconnects within
half a second of the server's return, resumes where it was, and lists again only when it must.
"""

import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from turtles.api.objects import Object, controller_of
from turtles.kube.client import ApiError, Client, Gone, NotFound, Unavailable
from turtles.kube.resources import Resource
from turtles.kube.watch import WatchStream

log = logging.getLogger(__name__)

#: Namespace (empty for cluster-scoped kinds) and name.
Key = tuple[str, str]
#: Called with the object before and after a change: (None, new) added, (old, new) changed, (old, None) deleted. *old*
#: is what the handler was last called with, also where a change of this process was in the cache before its event.
EventHandler = Callable[[Object | None, Object | None], None]
Objects = list[Object]
IndexFunction = Callable[[Object], Iterable[str]]

#: First and longest pause between two tries to reach the server, seconds.
_BACKOFF = (0.05, 0.4)
#: Longest pause while the server answers but refuses, seconds.
_REFUSED_BACKOFF = 2.0
#: Longest pause before asking again for an optional resource that the server doesn't have, seconds.
_ABSENT_BACKOFF = 300.0
#: Seconds without a watch that count as none: a server that restarts, a balancer that closes what was silent.
_BLINK = 30.0
#: Longer strings are hardly ever equal.
_SHARED_LENGTH = 64


def key_of(obj: Object) -> Key:
    """Return an object's namespace and name."""
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def version_of(obj: Object) -> int:
    """Return an object's resourceVersion as a number.

    KEP-5504 makes resource versions of one resource type comparable; kube-apiserver's always were.
    """
    try:
        return int(obj["metadata"].get("resourceVersion") or 0)
    except ValueError:
        return 0


class Informer:
    """A live, read-only copy of a resource type (or the part of it that the selectors choose).

    Objects handed out belong to the cache: don't change them. Handlers run one after the other on the
    informer's thread and must be quick; usually they put a key into a work queue.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        alternatives: Sequence[Resource] = (),
        optional: bool = False,
    ) -> None:
        """Create an empty cache.

        :param alternatives: other versions of the resource, of which the first that the server has is used.
        :param optional: the server may have none of them: the cache is empty then, and counts as synchronised.
        """
        self._client = client
        #: What is cached: of several versions the one that the server has.
        self.resource = resource
        self._candidates = (resource, *alternatives)
        self._optional = optional
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._lock = threading.RLock()
        self._objects: dict[Key, Object] = {}
        #: What the handlers were last called with, where :meth:`observe` has stored something newer.
        self._unreported: dict[Key, Object | None] = {}
        self._indexers: dict[str, IndexFunction] = {}
        self._indices: dict[str, dict[str, set[Key]]] = {}
        self._handlers: list[EventHandler] = []
        self._version = ""
        self._seen = 0
        #: Since when (monotonic) changes have been seen as they happened, but for gaps of a few seconds.
        self.watching_since = time.monotonic()
        #: When the watch was lost that isn't open again; None while there is one.
        self._lost_at: float | None = self.watching_since
        self._synced = threading.Event()
        self._stopped = threading.Event()
        self._stream: WatchStream | None = None
        self._thread: threading.Thread | None = None

    # For consumers

    def add_handler(self, handler: EventHandler) -> None:
        """Call a function with each change; everything already in the cache counts as added."""
        with self._lock:
            self._handlers.append(handler)
            present = list(self._objects.values())
        for obj in present:
            self._call(handler, None, obj)

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Keep an index; ``function`` gives the strings under which an object is found with :meth:`by_index`."""
        with self._lock:
            self._indexers[name] = function
            self._indices[name] = {}
            for key, obj in self._objects.items():
                for value in function(obj):
                    self._indices[name].setdefault(value, set()).add(key)

    def get(self, namespace: str | None, name: str) -> Object | None:
        """Return an object of the cache, or None."""
        with self._lock:
            return self._objects.get((namespace or "", name))

    def list(self, namespace: str | None = None) -> Objects:
        """Return the cached objects of a namespace, or all."""
        with self._lock:
            if namespace is None:
                return list(self._objects.values())
            return [obj for key, obj in self._objects.items() if key[0] == namespace]

    def by_index(self, name: str, value: str) -> Objects:
        """Return the cached objects that an index has under a value, ordered by namespace and name."""
        with self._lock:
            return [self._objects[key] for key in sorted(self._indices[name].get(value, ()))]

    def observe(self, obj: Object) -> None:
        """Put what a write returned into the cache before its event arrives, so that readers see their own writes.

        Ignored if the watch has already delivered that version or a later one (or its deletion). No handler is
        called; the event will do that, with the object as it was before the write.
        """
        with self._lock:
            version = version_of(obj)
            key = key_of(obj)
            cached = self._objects.get(key)
            if version > self._seen and (cached is None or version > version_of(cached)):
                self._unreported.setdefault(key, cached)
                self._store(key, obj)

    # Life

    def start(self) -> None:
        """Start listing and watching on a thread of its own."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=f"informer-{self.resource.plural}", daemon=True)
            thread.start()
            # Whoever stops it meanwhile, from another thread, can't wait for one that hasn't started
            self._thread = thread

    def stop(self, timeout: float = 1.0) -> None:
        """Stop watching; the cache stays as it is.

        :param timeout: seconds to wait for the thread, which may be in a request to a server that does not answer.
        """
        self._stopped.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    @property
    def synced(self) -> bool:
        """Whether the first list has been taken over and told to the handlers."""
        return self._synced.is_set()

    def wait_synced(self, timeout: float | None = None) -> bool:
        """Wait until the first list is in the cache; False when ``timeout`` seconds pass before."""
        return self._synced.wait(timeout)

    # The loop

    def _run(self) -> None:
        pause = _BACKOFF[0]
        while not self._stopped.is_set():
            started = time.monotonic()
            try:
                if not self._version:
                    self._relist()
                self._watch()
                longest = _BACKOFF[1]
            except Gone:
                log.info("the watch expired, listing again", extra={"resource": self.resource.plural})
                self._version = ""
                longest = _BACKOFF[1]
            except Unavailable as error:
                log.debug("watch lost: %s", error, extra={"resource": self.resource.plural})
                longest = _BACKOFF[1]
            except NotFound as error:
                self._version = ""
                longest = self._not_served(error)
            except ApiError as error:
                log.warning("cannot watch %s: %s", self.resource.plural, error)
                self._version = ""
                longest = _REFUSED_BACKOFF
            except Exception:
                log.exception("watch of %s failed", self.resource.plural)
                self._version = ""
                longest = _REFUSED_BACKOFF
            # A watch that lived is opened again at once; only one that fails again and again makes us wait.
            if time.monotonic() - started > 1.0:
                pause = _BACKOFF[0]
            self._stopped.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, longest)

    def _not_served(self, error: NotFound) -> float:
        """Continue with the next version; return the longest pause before requesting it."""
        following = self._candidates.index(self.resource) + 1
        if following < len(self._candidates):
            self.resource = self._candidates[following]
            return _BACKOFF[1]
        self.resource = self._candidates[0]
        if not self._optional:
            log.warning("cannot watch %s: %s", self.resource.plural, error)
            return _REFUSED_BACKOFF
        self._replace({}, 0)
        self._synced.set()
        return _ABSENT_BACKOFF

    def _relist(self) -> None:
        answer = self._client.list(
            self.resource, self._namespace, label_selector=self._label_selector, field_selector=self._field_selector
        )
        fresh = {key_of(obj): obj for obj in answer["items"]}
        version = str((answer.get("metadata") or {}).get("resourceVersion") or "0")
        self._replace(fresh, int(version) if version.isdigit() else 0)
        self._version = version
        self._synced.set()

    def _replace(self, fresh: Mapping[Key, Object], listed: int) -> None:
        """Replace the cache's content by a list, and call the handlers with the changes.

        :param listed: the list's version.
        """
        changes: list[tuple[Object | None, Object | None]] = []
        with self._lock:
            # A server whose versions went back (restored, or set up again) knows nothing of what is cached here.
            restarted = listed < self._seen
            self._seen = listed
            for key in self._objects.keys() - fresh.keys():
                # What a write of ours put here may be younger than the list.
                if restarted or version_of(self._objects[key]) <= listed:
                    self._unreported.pop(key, None)
                    changes.append((self._remove(key), None))
            for key, obj in fresh.items():
                cached = self._objects.get(key)
                if cached is not None and not restarted and version_of(cached) > version_of(obj):
                    continue
                if cached is None or version_of(cached) != version_of(obj) or key in self._unreported:
                    changes.append((self._unreported.pop(key, cached), obj))
                    self._store(key, obj)
        for old, new in changes:
            self._tell(old, new)

    def _watch(self) -> None:
        self._stream = stream = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            seconds=random.randint(240, 360),  # noqa: S311
        )
        if self._lost_at is not None and (now := time.monotonic()) - self._lost_at > _BLINK:
            self.watching_since = now
        self._lost_at = None
        try:
            if self._stopped.is_set():
                stream.close()
            for kind, obj in stream:
                self._take(kind, obj)
        finally:
            self._stream = None
            self._lost_at = time.monotonic()

    def _take(self, kind: str, obj: Object) -> None:
        metadata = obj["metadata"]
        self._version = metadata.get("resourceVersion") or self._version
        old: Object | None = None
        new: Object | None = None
        with self._lock:
            version = version_of(obj)
            self._seen = max(self._seen, version)
            if kind == "BOOKMARK":
                return
            key = key_of(obj)
            cached = self._objects.get(key)
            if kind == "DELETED":
                self._remove(key)
                self._unreported.pop(key, None)
                old = obj
            elif cached is not None and version_of(cached) > version:
                return  # an event older than what a write of ours already brought
            else:
                new = obj
                old = self._unreported.pop(key, cached)
                self._store(key, obj)
        self._tell(old, new)

    def _store(self, key: Key, obj: Object) -> None:
        # A third of an object, which nobody reads here; a PUT without it leaves the server's as it is.
        obj["metadata"].pop("managedFields", None)
        _share_strings(obj)
        self._unindex(key)
        self._objects[key] = obj
        for name, function in self._indexers.items():
            for value in function(obj):
                self._indices[name].setdefault(value, set()).add(key)

    def _remove(self, key: Key) -> Object | None:
        self._unindex(key)
        return self._objects.pop(key, None)

    def _unindex(self, key: Key) -> None:
        old = self._objects.get(key)
        if old is None:
            return
        for name, function in self._indexers.items():
            for value in function(old):
                keys = self._indices[name].get(value)
                if keys is not None:
                    keys.discard(key)
                    if not keys:
                        del self._indices[name][value]

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for handler in list(self._handlers):
            self._call(handler, old, new)

    def _call(self, handler: EventHandler, old: Object | None, new: Object | None) -> None:
        try:
            handler(old, new)
        except Exception:
            log.exception("a handler of %s failed", self.resource.plural)


def _share_strings(value: Any) -> None:
    """Let equal strings of all cached objects be one, in place: names of volumes, reasons, paths, times."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, str):
            if len(item) <= _SHARED_LENGTH:
                value[key] = sys.intern(item)
        elif isinstance(item, dict | list):
            _share_strings(item)


def wait_synced(informers: Iterable[Informer], timeout: float | None = None) -> bool:
    """Wait until all informers have their first list; False when ``timeout`` seconds pass before."""
    deadline = None if timeout is None else time.monotonic() + timeout
    return all(
        informer.wait_synced(None if deadline is None else max(0.0, deadline - time.monotonic()))
        for informer in informers
    )


def index_by_owner(obj: dict[str, Any]) -> list[str]:
    """Index function: the uid of the object's controlling owner."""
    owner = controller_of(obj)
    return [owner["uid"]] if owner is not None else []
