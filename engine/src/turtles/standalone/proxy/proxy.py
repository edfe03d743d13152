# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes Services reachable on this machine: watches them and their endpoints, and maintains the tables of rules."""

import threading

from turtles.kube.client import Client
from turtles.kube.controller import run_workers
from turtles.kube.informer import Informer, wait_synced
from turtles.kube.queue import WorkQueue
from turtles.kube.resources import ENDPOINTSLICE, SERVICE
from turtles.standalone.proxy.rules import Settings, compute
from turtles.standalone.proxy.table import Table


class Proxy:
    """Maintains the rules of one instance's Services.

    :param families: settings of each family of addresses that is served.
    :param bridges: interfaces of the Pods.
    """

    def __init__(self, client: Client, families: tuple[Settings, ...], bridges: tuple[str, ...]) -> None:
        self._tables = [(settings, Table(settings, bridges)) for settings in families]
        self._services = Informer(client, SERVICE)
        self._slices = Informer(client, ENDPOINTSLICE)
        self._queue: WorkQueue[str] = WorkQueue("services", first_delay=0.2)
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start, in threads of its own."""
        for informer in (self._services, self._slices):
            informer.start()
        threading.Thread(target=self._begin, name="services-start", daemon=True).start()

    def stop(self) -> None:
        """Stop; the rules stay."""
        self._stopped.set()
        self._queue.close()
        for informer in (self._services, self._slices):
            informer.stop()

    def _begin(self) -> None:
        # Before that, half of the Services would be taken for all of them.
        while not wait_synced([self._services, self._slices], 0.5):
            if self._stopped.is_set():
                return
        for informer in (self._services, self._slices):
            informer.add_handler(lambda old, new: self._queue.add("services"))
        self._queue.add("services")
        run_workers(self._queue, self.sync, 1, "services")

    def sync(self, _: str) -> None:
        """Update the rules to what the API says.

        :raises turtles.standalone.proxy.table.TableError: the kernel refuses.
        """
        services, slices = self._services.list(), self._slices.list()
        for settings, table in self._tables:
            table.apply(compute(settings, services, slices))
