# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Objects of a server, kept up to date by one watch per collection, however many of them a task is about."""

from __future__ import annotations

import threading
import time

from . import _resources, _wait
from ._errors import ApiError, KubeError
from ._values import is_number

# A watch is restarted now and then, so that one that a proxy has silently dropped costs seconds and not the timeout.
LONGEST_WATCH = 60
# Seconds for a server to come back before everything that waits gives up, and between attempts.
PATIENCE, PAUSE = 30, 0.5


class View:
    """What a client sees of some collections.

    Objects of collections that aren't followed are read when asked for. Those that are followed are listed once; the
    watches start with the first wait that isn't over at once. Threads may share a view.
    """

    def __init__(self, client):
        self.client = client
        self._lock = threading.Lock()
        # One per object, so that an event wakes nobody but those who wait for it.
        self._changed = {}
        self._feeds = {}
        self._objects = {}
        # Versions at which objects went, so that a late answer doesn't bring them back.
        self._gone = {}
        self._error = None
        self._started = False

    def follow(self, resource, namespace=None, name=None):
        """Keep a collection up to date, or one object of it; list it now.

        :param namespace: None means all of them.
        :raises KubeError: it can't be listed; ApiError if the server refuses.
        """
        feed = _Feed(self, resource, namespace, name)
        if feed.key in self._feeds:
            return
        feed.list()
        self._feeds[feed.key] = feed
        if self._started:
            feed.start()

    def follows(self, resource, namespace, name):
        """Return whether the object is kept up to date."""
        return any((resource, *place) in self._feeds for place in ((namespace, name), (namespace, None), (None, None)))

    def get(self, resource, namespace, name):
        """Return an object, or None; it isn't to be changed."""
        if not self.follows(resource, namespace, name):
            return self.client.get(_resources.path(resource, namespace, name))
        return self._objects.get((resource, namespace, name))

    def observe(self, resource, obj):
        """Take note of an object as a write has returned it."""
        metadata = obj.get("metadata") or {}
        if self.follows(resource, metadata.get("namespace"), metadata.get("name")):
            self._take(resource, obj)

    def until(self, resource, namespace, name, timeout, done, hopeless=None):
        """Wait until done(object or None) is true, and return the object; as _wait.until().

        It is asked again whenever an object with this namespace and name changes, of whatever kind is followed.
        """
        deadline = time.monotonic() + timeout
        first_seen = {}
        key = (namespace, name)
        while True:
            with self._lock:
                changed = self._changed.setdefault(key, threading.Event())
            changed.clear()
            if self._error:
                raise self._error
            obj = self.get(resource, namespace, name)
            pause = _wait.judge(obj, done, hopeless, first_seen, deadline)
            if pause is None:
                return obj
            self.start()
            changed.wait(pause)

    def start(self):
        """Start the watches, unless they run."""
        with self._lock:
            if self._started:
                return
            self._started = True
        for feed in self._feeds.values():
            feed.start()

    def close(self):
        """End the watches."""
        for feed in self._feeds.values():
            feed.stop()

    def _take(self, resource, obj):
        metadata = obj["metadata"]
        key = (resource, metadata.get("namespace"), metadata["name"])
        with self._lock:
            version = _version(obj)
            if version < max(_version(self._objects.get(key)), self._gone.get(key, 0)):
                return
            self._objects[key] = obj
        self._tell(key)

    def _drop(self, key, version):
        with self._lock:
            if version < _version(self._objects.get(key)):
                return
            self._gone[key] = version
            self._objects.pop(key, None)
        self._tell(key)

    def _replace(self, feed, items, version):
        """Take a list for the whole truth about a feed's collection."""
        keys = {(feed.resource, item["metadata"].get("namespace"), item["metadata"]["name"]) for item in items}
        for key in [key for key in list(self._objects) if key not in keys and feed.covers(key)]:
            self._drop(key, version)
        for item in items:
            self._take(feed.resource, item)

    def _tell(self, key):
        changed = self._changed.get(key[1:])
        if changed:
            changed.set()

    def _fail(self, error):
        self._error = error
        for changed in list(self._changed.values()):
            changed.set()


class _Feed:
    """One collection of a view."""

    def __init__(self, view, resource, namespace, name):
        self.view = view
        self.resource = resource
        self.key = (resource, namespace, name)
        self._path = _resources.path(resource, namespace)
        self._selector = "metadata.name=%s" % name if name else None
        self._version = None
        self._stopped = threading.Event()
        self._response = None

    def covers(self, key):
        """Return whether an object belongs to the collection."""
        return all(mine is None or mine == its for mine, its in zip(self.key, key))

    def list(self):
        """Read the collection."""
        items, version = self.view.client.list(self._path, field_selector=self._selector)
        self._version = version
        self.view._replace(self, items, _number(version))

    def start(self):
        """Watch from now on."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self):
        """End the watch, if it can be ended from here; otherwise it ends by its own time limit."""
        self._stopped.set()
        shutdown = getattr(self._response, "shutdown", None)
        if shutdown:
            try:
                shutdown()
            except (OSError, ValueError, RuntimeError):
                return

    def _run(self):
        lost = None
        while not self._stopped.is_set():
            try:
                if self._version is None:
                    self.list()
                lost = None
                self._watch()
            except KubeError as exc:
                now = time.monotonic()
                lost = lost or now
                refused = isinstance(exc, ApiError) and exc.status < 500 and exc.status not in (410, 429)
                if refused or exc.facts.get("status") == 401 or now - lost > PATIENCE:
                    self.view._fail(exc)
                    return
                self._stopped.wait(PAUSE)
            except Exception as exc:  # nobody else would hear of it, and all that waits would do so to its end
                self.view._fail(KubeError("%s: unexpected answer: %s: %s" % (self._path, type(exc).__name__, exc)))
                return
            self._version = None

    def _watch(self):
        events = self.view.client.watch(
            self._path, self._version, LONGEST_WATCH, field_selector=self._selector, opened=self._opened
        )
        for kind, obj in events:
            if kind in ("ADDED", "MODIFIED"):
                self.view._take(self.resource, obj)
            elif kind == "DELETED":
                metadata = obj["metadata"]
                self.view._drop((self.resource, metadata.get("namespace"), metadata["name"]), _version(obj))
            if self._stopped.is_set():
                return

    def _opened(self, response):
        self._response = response
        if self._stopped.is_set():
            self.stop()


def _version(obj):
    return _number(((obj or {}).get("metadata") or {}).get("resourceVersion"))


def _number(version):
    """Return a resourceVersion as a number: versions of a kind can be compared (KEP-5504)."""
    return int(version) if is_number(str(version)) else 0
