# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs controllers over caches that they share.

A controller is a name, its triggers and a reconcile function. The manager owns the rest: informers, of which there is
one per resource and selector however many controllers use it, a work queue and workers per controller, start and stop.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from turtles.api.objects import Object, controller_of
from turtles.kube.client import Client
from turtles.kube.controller import run_workers
from turtles.kube.informer import Informer, Key, key_of, wait_synced
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import Resource

log = logging.getLogger(__name__)

#: Gives the keys that a change calls for, from the object before and after: (None, new), (old, new) or (old, None).
Keys = Callable[[Object | None, Object | None], Iterable[Key]]

#: Seconds after which a log line says what a controller is waiting for.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Trigger:
    """Changes in a cache that call for work."""

    informer: Informer
    keys: Keys


def each(informer: Informer) -> Trigger:
    """Work on every object that changes."""
    return Trigger(informer, lambda old, new: [key_of(new or old or {})])


def owner_of(informer: Informer, kind: str) -> Trigger:
    """Work on the object of *kind* that controls the one that changed."""

    def keys(old: Object | None, new: Object | None) -> list[Key]:
        obj = new or old or {}
        owner = controller_of(obj)
        if owner is None or owner.get("kind") != kind:
            return []
        return [(obj["metadata"].get("namespace") or "", owner["name"])]

    return Trigger(informer, keys)


@dataclass(frozen=True)
class Controller:
    """One control loop.

    :param name: for logs and threads.
    :param reconcile: brings the object of a key closer to what is wanted; see :mod:`turtles.kube.controller`.
    :param triggers: what calls for it.
    :param reads: caches it looks into besides those of its triggers.
    :param workers: threads; one object's work is a few requests, and more threads only compete for the interpreter.
    :param essential: the component isn't ready before this works.
    """

    name: str
    reconcile: Callable[[Key], float | None]
    triggers: Sequence[Trigger]
    reads: Sequence[Informer] = ()
    workers: int = 1
    essential: bool = True


class Manager:
    """The controllers of a component. Add them all, then start."""

    def __init__(self, client: Client) -> None:
        """Create it without controllers.

        :param client: all informers use it.
        """
        self._client = client
        self._informers: dict[object, Informer] = {}
        self._queues: dict[str, WorkQueue[Key]] = {}
        self._controllers: list[Controller] = []
        self._stopped = threading.Event()
        self._starting = 0
        self._lock = threading.Lock()
        #: Set once every essential controller works, or would if it led.
        self.ready = threading.Event()

    def informer(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        alternatives: Sequence[Resource] = (),
        optional: bool = False,
    ) -> Informer:
        """Return the cache of these objects; the same one for the same arguments.

        :param alternatives: other versions, of which the first that the server has is used.
        :param optional: the cache stays empty if the server has none of them.
        """
        key = (resource, namespace, label_selector, field_selector)
        if key not in self._informers:
            self._informers[key] = Informer(
                self._client,
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                alternatives=alternatives,
                optional=optional,
            )
        return self._informers[key]

    def share(self, informer: Informer) -> Informer:
        """Start and stop an informer that was created elsewhere along with the others."""
        self._informers[informer] = informer
        return informer

    def add(self, controller: Controller) -> None:
        """Run a controller from the start on."""
        self._controllers.append(controller)
        self._queues[controller.name] = WorkQueue(controller.name)

    @property
    def queues(self) -> Sequence[WorkQueue[Key]]:
        """The controllers' work queues."""
        return tuple(self._queues.values())

    def start(self, gate: threading.Event) -> None:
        """Fill the caches, then work whenever *gate* is set; return immediately."""
        for informer in self._informers.values():
            informer.start()
        self._starting = sum(controller.essential for controller in self._controllers)
        for controller in self._controllers:
            threading.Thread(
                target=self._run, args=(controller, gate), name=f"start-{controller.name}", daemon=True
            ).start()

    def stop(self) -> None:
        """Stop working; requests on their way are not waited for."""
        self._stopped.set()
        for queue in self._queues.values():
            queue.close()
        for informer in self._informers.values():
            informer.stop(timeout=0)

    def _run(self, controller: Controller, gate: threading.Event) -> None:
        informers = list(dict.fromkeys([*(trigger.informer for trigger in controller.triggers), *controller.reads]))
        # What a reconcile finds in the caches must be the whole truth.
        while not wait_synced(informers, _PATIENCE) and not self._stopped.is_set():
            waiting = [informer.resource.plural for informer in informers if not informer.synced]
            log.warning("waiting for the API server", extra={"controller": controller.name, "resources": waiting})
        if self._stopped.is_set():
            return
        queue = self._queues[controller.name]
        for trigger in controller.triggers:
            trigger.informer.add_handler(_adder(queue, trigger.keys))
        run_workers(queue, controller.reconcile, controller.workers, controller.name, gate=gate)
        log.info("working", extra={"controller": controller.name})
        with self._lock:
            self._starting -= controller.essential
            if not self._starting:
                self.ready.set()


def _adder(queue: WorkQueue[Key], keys: Keys) -> Callable[[Object | None, Object | None], None]:
    def handler(old: Object | None, new: Object | None) -> None:
        for key in keys(old, new):
            queue.add(key)

    return handler
