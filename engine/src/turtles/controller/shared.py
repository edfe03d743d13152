# SPDX-License-Identifier: GPL-3.0-or-later
"""What all controllers of the component work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from turtles.api.configuration import ClusterConfiguration
from turtles.controller.caches import Caches
from turtles.kube.client import Client
from turtles.kube.events import Recorder
from turtles.kube.manager import Manager
from turtles.kube.writer import Writer


@dataclass(frozen=True)
class Shared:
    """What all controllers of the component work with.

    :param configuration: gives the configuration in force.
    """

    client: Client
    manager: Manager
    caches: Caches
    recorder: Recorder
    configuration: Callable[[], ClusterConfiguration]

    @property
    def writer(self) -> Writer:
        """What a controller writes with."""
        return Writer(self.client)
