# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Somebody who must not notice what happens to the engine."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from deployed import Deployed
from kubernetes import client


class User:
    """Somebody who uses webhooks and the aggregated API without a pause.

    :param failures: what went wrong. :param done: how much was asked.
    """

    def __init__(self, cluster: Deployed, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._ended = threading.Event()
        self.failures: list[str] = []
        self.done = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> User:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        machine = self._cluster.virtual_machine("never", run_strategy="Halted")
        while not self._ended.wait(0.02):
            try:
                self._cluster.custom.create_namespaced_custom_object(
                    "kubevirt.io", "v1", self._namespace, "virtualmachines", machine, dry_run="All"
                )
                self._cluster.custom.get_api_resources("subresources.kubevirt.io", "v1")
            except client.ApiException as error:
                self.failures.append(f"{datetime.now(UTC):%T.%f} {error.status} {error.body}")
            self.done += 1
