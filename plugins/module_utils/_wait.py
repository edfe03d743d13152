# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waiting by watch."""

from __future__ import annotations

import time

from . import _resources
from ._errors import KubeError

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

    def only(objects):
        return objects[0] if objects else None

    try:
        obj = _until(
            client,
            _resources.path(resource, namespace),
            timeout,
            lambda objects: done(only(objects)),
            (lambda objects: hopeless(only(objects))) if hopeless else None,
            field_selector="metadata.name=%s" % name,
        )
    except GaveUp as exc:
        raise GaveUp(exc.why, only(exc.obj)) from exc
    return only(obj)


def until_all(client, collection, timeout, done, hopeless, label_selector, field_selector):
    """Watch a collection until there is an object and done(object) is true for all of them, and return them.

    :param collection: its path. The rest is as for until().
    :raises GaveUp: one of them, its `obj`, is hopeless, or the time is over; None where there is none.
    """

    def late(objects):
        return next((obj for obj in objects if not done(obj)), None)

    try:
        return _until(
            client,
            collection,
            timeout,
            lambda objects: bool(objects) and late(objects) is None,
            lambda objects: {} if late(objects) is None else hopeless(late(objects)),
            label_selector,
            field_selector,
        )
    except GaveUp as exc:
        raise GaveUp(exc.why, late(exc.obj)) from exc


def _until(client, collection, timeout, done, hopeless, label_selector=None, field_selector=None):
    """Watch a collection until done(list of its objects) is true, and return them."""
    deadline = time.monotonic() + timeout
    first_seen = {}
    while True:
        items, version = client.list(collection, label_selector, field_selector)
        objects = {_key(item): item for item in items}
        pause = judge(list(objects.values()), done, hopeless, first_seen, deadline)
        if pause is None:
            return list(objects.values())
        for kind, seen in client.watch(
            collection,
            version,
            min(pause, _LONGEST_WATCH),
            field_selector=field_selector,
            label_selector=label_selector,
        ):
            if kind not in ("ADDED", "MODIFIED", "DELETED"):
                continue
            if kind == "DELETED":
                objects.pop(_key(seen), None)
            else:
                objects[_key(seen)] = seen
            next_pause = judge(list(objects.values()), done, hopeless, first_seen, deadline)
            if next_pause is None:
                return list(objects.values())
            if next_pause < pause - 1:
                # There is less time than the open watch was given.
                break


def _key(obj):
    return obj["metadata"].get("namespace"), obj["metadata"]["name"]


def judge(obj, done, hopeless, first_seen, deadline):
    """Return None when done, else the seconds until something must be decided again.

    :param obj: what is waited for, as done() and hopeless() take it.
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
    troubles = []
    for entry in (obj.get("status") or {}).get("conditions") or []:
        because = ": ".join(entry[key] for key in ("reason", "message") if entry.get(key))
        troubles.append("%s=%s%s" % (entry.get("type"), entry.get("status"), " (%s)" % because if because else ""))
    finalizers = (obj.get("metadata") or {}).get("finalizers")
    return troubles + (["it still has the finalizers %s" % ", ".join(finalizers)] if finalizers else [])
