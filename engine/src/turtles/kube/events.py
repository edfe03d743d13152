# SPDX-License-Identifier: GPL-3.0-or-later
"""Events: what ``kubectl describe`` shows below an object."""

import logging
import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import times
from turtles.kube.client import ApiError, Client, NotFound
from turtles.kube.resources import EVENT

log = logging.getLogger(__name__)

_WAITING = 1000
_REMEMBERED = 4096
#: The API server refuses longer messages (events.k8s.io validation: 1 kB).
MESSAGE_LENGTH = 1024


@dataclass
class _Sent:
    namespace: str
    name: str
    count: int


class Recorder:
    """Writes events on a thread of its own, so that callers don't wait; a repeated event only increases its count.

    Events are for people: if they can't be written they are dropped.
    """

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        """Create a recorder.

        :param component: source of the events, such as ``virt-controller``.
        :param host: node the component runs on, for components of a node.
        """
        self._client = client
        self._source = {"component": component, **({"host": host} if host else {})}
        self._sent: OrderedDict[tuple[str, ...], _Sent] = OrderedDict()
        self._queue: queue.Queue[tuple[dict[str, Any], str, str, str, str] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def event(self, obj: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        """Record an event about an object.

        :param obj: the object, with apiVersion and kind, or an object reference (``kind``, ``name``, ``uid``…).
        :param type_: ``Normal`` or ``Warning``.
        :param reason: one word in CamelCase.
        :param message: one sentence for a user.
        """
        try:
            self._queue.put_nowait((_reference(obj), type_, reason, message[:MESSAGE_LENGTH], times.now()))
        except queue.Full:
            log.warning("event dropped, too many are waiting", extra={"reason": reason})

    def close(self, timeout: float = 2.0) -> None:
        """Write what is waiting, for at most ``timeout`` seconds, and stop."""
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(*item)
            except ApiError as error:
                log.warning("event dropped: %s", error, extra={"reason": item[2]})
            except Exception:
                log.exception("event dropped")

    def _write(self, reference: dict[str, Any], type_: str, reason: str, message: str, now: str) -> None:
        key = (reference.get("uid") or "", reference["kind"], reference["name"], type_, reason, message)
        namespace = reference.get("namespace") or "default"
        if (sent := self._sent.get(key)) is not None:
            self._sent.move_to_end(key)
            sent.count += 1
            try:
                self._client.patch(EVENT, sent.namespace, sent.name, {"count": sent.count, "lastTimestamp": now})
                return
            except NotFound:
                del self._sent[key]  # events live for an hour
        name = f"{reference['name'][:200]}.{secrets.token_hex(8)}"
        self._client.create(
            EVENT,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": reference,
                "type": type_,
                "reason": reason,
                "message": message,
                "source": self._source,
                "reportingComponent": self._source["component"],
                "reportingInstance": self._source.get("host", ""),
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
            },
        )
        self._sent[key] = _Sent(namespace, name, 1)
        if len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)


def _reference(obj: Mapping[str, Any]) -> dict[str, Any]:
    metadata = obj.get("metadata") or obj
    reference = {"apiVersion": obj.get("apiVersion"), "kind": obj["kind"]}
    for key in ("name", "namespace", "uid", "resourceVersion"):
        if metadata.get(key):
            reference[key] = metadata[key]
    return reference
