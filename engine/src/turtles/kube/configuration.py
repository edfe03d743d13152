# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration in force, kept up to date by a watch on the KubeVirt object."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from turtles.api import configuration, configuration_reader
from turtles.api.configuration import ClusterConfiguration
from turtles.kube.client import Client
from turtles.kube.informer import Informer
from turtles.kube.kubevirt import KUBEVIRT

log = logging.getLogger(__name__)

Handler = Callable[[ClusterConfiguration], None]


class ConfigurationWatch:
    """Keeps a component's configuration up to date with the KubeVirt object, without a restart.

    Until the object has been read, and where there is none, ``current`` is the configuration of an empty one.
    """

    def __init__(self, client: Client, namespace: str, architecture: str = configuration.DEFAULT.architecture) -> None:
        """Create the watch.

        :param namespace: the engine's, where the object is.
        :param architecture: of machines, if neither they nor the object specify it.
        """
        self._architecture = architecture
        self._handlers: list[Handler] = []
        self.current = configuration_reader.from_kubevirt(None, architecture)
        self.informer = Informer(client, KUBEVIRT, namespace=namespace)
        self.informer.add_handler(self._changed)

    def add_handler(self, handler: Handler) -> None:
        """Call a function with the configuration, now and with every change. It must be quick."""
        self._handlers.append(handler)
        handler(self.current)

    def follow_verbosity(self, component: str, level: str) -> None:
        """Set the process's log level as the object says.

        :param component: KubeVirt's key, such as virtController.
        :param level: what the command line says; debug stays debug whatever the object says.
        """

        def set_level(config: ClusterConfiguration) -> None:
            chosen = config.log_level(component) if level == "info" else level
            logging.getLogger().setLevel(chosen.upper())

        self.add_handler(set_level)

    def _changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        kubevirt = configuration_reader.in_force(self.informer.list())
        config = configuration_reader.from_kubevirt(kubevirt, self._architecture)
        if config == self.current:
            return
        self.current = config
        log.info("configuration changed", extra={"kubevirt": kubevirt["metadata"]["name"] if kubevirt else None})
        for handler in self._handlers:
            handler(config)
