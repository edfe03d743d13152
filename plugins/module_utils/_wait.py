# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waiting by watch."""

from __future__ import annotations

import time

from . import _resources
from ._client import KubeError

# A watch is restarted now and then, so that one that a proxy has silently dropped costs seconds and not the timeout.
_LONGEST_WATCH = 60


class Deadline:
    """The time that a task may wait: its option wait_timeout, counted from now."""

    def __init__(self, seconds):
        if seconds < 0:
            raise KubeError("wait_timeout: %d is negative. Give seconds, or set wait=false." % seconds)
        self.seconds = seconds
        self.restart()

    def restart(self):
        """Count from now on: what follows has its own time."""
        self._end = time.monotonic() + self.seconds

    def left(self):
        """Return the seconds that are left, at least one: what has just happened may still be seen."""
        return max(1, self._end - time.monotonic())

    def is_over(self):
        """Return whether no time is left."""
        return time.monotonic() >= self._end


class GaveUp(Exception):
    """The state won't be reached. `why` names a hopeless state, and is None if the time was up.

    `obj` is the object as it was last seen, None if there is none.
    """

    def __init__(self, why, obj):
        super().__init__(why or "not in time")
        self.why = why
        self.obj = obj


def until(client, resource, namespace, name, timeout, done, hopeless=None):
    """Watch one object until done(object or None) is true, and return it.

    :param timeout: seconds.
    :param hopeless: function from the object to {reason: grace in seconds} of states that won't get better.
    :raises GaveUp: it is hopeless, or the time is over.
    """
    deadline = time.monotonic() + timeout
    first_seen = {}
    collection = _resources.path(resource, namespace)
    selector = "metadata.name=%s" % name
    while True:
        items, version = client.list(collection, field_selector=selector)
        obj = items[0] if items else None
        pause = judge(obj, done, hopeless, first_seen, deadline)
        if pause is None:
            return obj
        for kind, seen in client.watch(collection, version, min(pause, _LONGEST_WATCH), field_selector=selector):
            if kind not in ("ADDED", "MODIFIED", "DELETED"):
                continue
            obj = None if kind == "DELETED" else seen
            next_pause = judge(obj, done, hopeless, first_seen, deadline)
            if next_pause is None:
                return obj
            if next_pause < pause - 1:
                # There is less time than the open watch was given.
                break


def judge(obj, done, hopeless, first_seen, deadline):
    """Return None when done, else the seconds until something must be decided again.

    :param first_seen: reasons of hopelessness with the times since when they hold; {} at first, kept by the caller.
    :param deadline: a time.monotonic().
    :raises GaveUp: it is hopeless, or the time is over.
    """
    if done(obj):
        return None
    now = time.monotonic()
    pauses = [deadline - now]
    for reason, grace in (hopeless(obj) if hopeless and obj else {}).items():
        since = first_seen.setdefault(reason, now)
        if now - since >= grace:
            raise GaveUp(reason, obj)
        pauses.append(since + grace - now)
    if now >= deadline:
        raise GaveUp(None, obj)
    return max(0.1, min(pauses))


def condition(obj, kind):
    """Return the condition of that type as a dict; {} where there is none."""
    for entry in ((obj or {}).get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind:
            return entry
    return {}


def is_true(obj, kind):
    """Return whether the object (or None) has that condition, and it is true."""
    return condition(obj, kind).get("status") == "True"


def reasons(obj):
    """Return what an object's conditions and finalizers say, a sentence each."""
    obj = obj or {}
    said = [
        "%s=%s (%s: %s)" % (entry.get("type"), entry.get("status"), entry.get("reason"), entry.get("message"))
        for entry in (obj.get("status") or {}).get("conditions") or []
    ]
    finalizers = (obj.get("metadata") or {}).get("finalizers")
    return said + (["it still has the finalizers %s" % ", ".join(finalizers)] if finalizers else [])
